//! dvcfs mounts a DVC data registry as folders, at any git revision.
//!
//! Eight nouns carry everything: a *Revision* resolves to a commit, a commit gives a *Tree*, a
//! file in a Tree names its content by *`BlobId`*, a *Remote* is where blobs live for everyone, the
//! *`BlobCache`* is where they live on this disk, *Blobs* joins the two, an *Overlay* takes writes
//! above a Tree, and the *Vfs* answers file-system questions from them.
//!
//! Modules in floor order; each uses lower floors only (a test holds this):
//!
//! | floor | modules |
//! |---|---|
//! | 0 words | [`id`], [`path`], [`recent`], [`stats`], [`steps`] |
//! | 1 formats | [`dvc`], [`atomic`], [`usage`] |
//! | 2 stores | [`git`], [`remote`], [`cache`], [`sizes`], [`segments`], [`overlay`] |
//! | 3 content | [`blobs`] |
//! | 4 namespace | [`tree`], [`registry`] |
//! | 5 system | [`vfs`], [`publish`] |
//! | 6 kernel | [`fuse`] |
//! | 7 people | [`cli`] |

pub mod id;
pub mod path;
pub mod recent;
pub mod stats;
pub mod steps;

pub mod atomic;
pub mod dvc;
pub mod usage;

pub mod cache;
pub mod git;
pub mod overlay;
pub mod remote;
pub mod segments;
pub mod sizes;

pub mod blobs;

pub mod registry;
pub mod tree;

pub mod publish;
pub mod vfs;

pub mod fuse;

pub mod cli;
