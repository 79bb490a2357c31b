"""The spatial autoregressive network (AR) over the patch grid."""
