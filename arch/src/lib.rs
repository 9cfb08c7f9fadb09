//! Architectures.
#![no_std]
