//! Communication between processes that is not a file: futexes, System V objects.
