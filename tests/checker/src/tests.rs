//! Each detector is proven by an anomaly planted in a history that is otherwise right, and by silence without it.

mod planted;
mod random;
mod untimed;
mod world;
