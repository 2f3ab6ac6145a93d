//! The bundle against `SHA1SUMS`, the real `sha1sum` and a real server.
