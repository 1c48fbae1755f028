//! What a model has been promised: a broker that acknowledges before the disk has it may lose that in a crash, unless all that
//! was appended was on the disk meanwhile.

use super::World;

/// A fact, and what of it no crash can undo.
#[derive(Clone, Debug, Default)]
pub struct Kept<T> {
    now: T,
    kept: T,
}

impl<T: Clone> Kept<T> {
    /// What is promised.
    pub fn get(&self) -> &T {
        &self.now
    }

    /// The broker has promised it.
    pub fn set(&mut self, world: &World, value: T) {
        self.now = value;
        if world.sync {
            self.kept = self.now.clone();
        }
    }

    /// All that was appended is on the disk.
    pub fn flushed(&mut self) {
        self.kept = self.now.clone();
    }

    /// The shard died.
    pub fn crashed(&mut self) {
        self.now = self.kept.clone();
    }
}
