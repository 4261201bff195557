//! Thin client of the tokencache broker.
