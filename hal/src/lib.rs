//! HAL.
#![no_std]
