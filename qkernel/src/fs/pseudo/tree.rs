//! Trees of fixed names, built once.

use super::{Dir, Entries, Entry, Link, Meta, TextFile, new_ino};
use crate::fs::inode::{Inode, InodeRef};
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::Errno;

/// A fixed list of names.
#[derive(Default)]
pub struct Table(pub Vec<(&'static str, InodeRef)>);

impl Table {
    /// Finds a name.
    pub fn find(&self, name: &[u8]) -> Option<InodeRef> {
        let hit = self.0.iter().find(|(n, _)| n.as_bytes() == name);
        hit.map(|(_, i)| i.clone())
    }
    /// The listing.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(n, i): &(&'static str, InodeRef)| {
            let ino = i.stat().map_or(0, |s| s.ino);
            Entry::new(n.as_bytes(), ino, i.file_type())
        };
        self.0.iter().map(entry).collect()
    }
}

impl Entries for Table {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        self.find(name).ok_or(Errno::ENOENT)
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        Ok(self.entries())
    }
    fn stable(&self) -> bool {
        true
    }
    fn nlink(&self) -> Option<u32> {
        let dirs = self
            .0
            .iter()
            .filter(|(_, i)| i.file_type() == crate::fs::FileType::Directory);
        Some(2 + dirs.count() as u32)
    }
}

/// Builds a directory of fixed names.
pub struct Tree {
    dev: u64,
    table: Table,
}

impl Tree {
    /// An empty directory of file system `dev`.
    pub fn new(dev: u64) -> Self {
        Self {
            dev,
            table: Table::default(),
        }
    }
    fn meta(&self, perm: u32) -> Meta {
        Meta {
            dev: self.dev,
            ino: new_ino(),
            perm,
            uid: 0,
            gid: 0,
        }
    }
    /// Adds an inode made elsewhere.
    pub fn add(&mut self, name: &'static str, inode: InodeRef) -> &mut Self {
        self.table.0.push((name, inode));
        self
    }
    /// Adds a generated file.
    pub fn file(
        &mut self,
        name: &'static str,
        show: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> &mut Self {
        let meta = self.meta(0o444);
        self.add(name, TextFile::new(meta, show))
    }
    /// Adds a file of fixed text.
    pub fn text(&mut self, name: &'static str, text: &'static str) -> &mut Self {
        self.file(name, move || Ok(text.as_bytes().to_vec()))
    }
    /// Adds a generated file that takes writes.
    pub fn knob(
        &mut self,
        name: &'static str,
        show: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
        store: impl Fn(&[u8]) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> &mut Self {
        let meta = self.meta(0o644);
        self.add(name, TextFile::writable(meta, show, store))
    }
    /// Adds a symlink.
    pub fn link(&mut self, name: &'static str, target: &'static str) -> &mut Self {
        let meta = self.meta(0o777);
        self.add(name, Link::new(meta, move || Ok(target.as_bytes().to_vec())))
    }
    /// Adds a symlink whose target is computed.
    pub fn link_to(
        &mut self,
        name: &'static str,
        target: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    ) -> &mut Self {
        let meta = self.meta(0o777);
        self.add(name, Link::new(meta, move || Ok(target())))
    }
    /// Adds a directory that `fill` fills.
    pub fn dir(&mut self, name: &'static str, fill: impl FnOnce(&mut Tree)) -> &mut Self {
        let mut sub = Tree::new(self.dev);
        fill(&mut sub);
        let inode = sub.finish();
        self.add(name, inode)
    }
    /// The table, for a directory with names of its own besides.
    pub fn into_table(self) -> Table {
        self.table
    }
    /// The directory.
    pub fn finish(self) -> Arc<dyn Inode> {
        let meta = self.meta(0o555);
        Dir::new(meta, self.table)
    }
}
