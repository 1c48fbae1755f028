//! Request codes, response codes, and the bits of the flags that messages carry.
