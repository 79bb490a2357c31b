"""Grey scans whose compression lost detail: a map may mark what it left behind."""

from __future__ import annotations

__all__ = ["LOSSY", "dicom_loss", "lossy_notice"]

#: Part of every such notice, by which one is known among others.
LOSSY = "fine detail is lost, and traces of the compression may be marked"

_JPEG = "1.2.840.10008.1.2.4."
# Transfer syntaxes that always lose detail. JPEG 2000 and its kin may keep it all.
_ALWAYS = {f"{_JPEG}50": "JPEG", f"{_JPEG}51": "JPEG", f"{_JPEG}81": "JPEG-LS"}


def lossy_notice(what: str, kind: str) -> str:
    """Return the notice of a scan that was compressed with loss.

    Parameters
    ----------
    what : str
        The scan, with its verb, such as "picture.jpg is".
    kind : str
        Of compression, such as "JPEG".
    """
    return f"{what} compressed with loss ({kind}): {LOSSY}; open the original if there is one."


def dicom_loss(syntax: str, flag: str) -> str:
    """Return the kind of loss that the pixels of a DICOM file went through; empty for none.

    Parameters
    ----------
    syntax : str
        UID of the transfer syntax.
    flag : str
        Lossy Image Compression (0028,2110): "01" also of pixels that were unpacked since.
    """
    return _ALWAYS.get(syntax) or ("as the header says" if flag == "01" else "")
