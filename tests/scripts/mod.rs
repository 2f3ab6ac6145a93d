//! The scripts as files: headers against code, digests against every place that has the bytes.
