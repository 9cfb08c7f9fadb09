//! Waiting and waking.

pub mod wait;
