//! A small file system of its own, in a file that a loop device makes a disk of: for what happens when a disk is full, turns
//! read-only or fails.
//!
//! It is mounted in a mount namespace of the test's thread, which the processes that this thread starts share. With the last
//! of them the mount and the loop device are gone, however the test ended.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::new_dir;

/// `EXT4_IOC_SHUTDOWN`: every later operation of the file system fails with EIO.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// What is in the journal already is written; nothing else.
const SHUT_DOWN_WITH_JOURNAL: u32 = 1;

/// An ext4 file system, unmounted when dropped. It must outlive the processes that use it.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    dir: PathBuf,
    name: String,
}

impl LoopDisk {
    /// Makes one of so many MiB; `None`, and a word on standard error, where this user or machine cannot.
    pub fn new(mib: u64) -> Option<Self> {
        // SAFETY: unshare takes no memory; only this thread gets another view of the mounts.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            let error = io::Error::last_os_error();
            eprintln!("skipped: only root can mount a disk for this test ({error})");
            return None;
        }
        let base = new_dir();
        let (image, dir) = (base.join("image"), base.join("disk"));
        fs::create_dir(&dir).expect("a directory to mount at");
        let file = fs::File::create(&image).expect("a file for the disk");
        file.set_len(mib << 20).expect("room for the disk");
        let mut disk = Self {
            image,
            dir,
            name: String::new(),
        };
        let made = run("mount", &["--make-rprivate", "/"])
            .and_then(|()| run("mkfs.ext4", &["-q", "-m", "0", &text(&disk.image)]))
            .and_then(|()| disk.mount());
        if let Err(error) = made {
            eprintln!("skipped: no disk can be mounted for this test: {error}");
            return None;
        }
        Some(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes it turn read-only under those who write to it, as after an error of its own.
    pub fn turn_read_only(&self) {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.name);
        fs::write(&trigger, "1").unwrap_or_else(|e| panic!("{trigger}: {e}"));
    }

    /// Makes every operation fail with EIO from now on.
    pub fn fail(&self) {
        let dir = fs::File::open(&self.dir).expect("the disk");
        // SAFETY: the call reads one number that lives until it has returned.
        let result =
            unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &SHUT_DOWN_WITH_JOURNAL) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        let path = std::ffi::CString::new(text(&self.dir)).expect("a path without a zero");
        let mut facts = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the path ends with a zero, and the call fills in the structure.
        let facts = unsafe {
            assert_eq!(libc::statvfs(path.as_ptr(), facts.as_mut_ptr()), 0);
            facts.assume_init()
        };
        facts.f_bavail * facts.f_frsize
    }

    /// Unmounts it, repairs it as a boot does, and mounts it again.
    pub fn mount_again(&mut self) {
        self.unmount();
        // It says 1 when it repaired something.
        let status = Command::new("e2fsck")
            .args(["-fp", &text(&self.image)])
            .output();
        let code = status.expect("e2fsck").status.code();
        assert!(matches!(code, Some(0 | 1)), "e2fsck: {code:?}");
        self.mount().expect("the disk mounts again");
    }

    fn mount(&mut self) -> Result<(), String> {
        let (image, dir) = (text(&self.image), text(&self.dir));
        run("mount", &["-o", "loop,errors=remount-ro", &image, &dir])?;
        let mounts = fs::read_to_string("/proc/thread-self/mounts").map_err(|e| e.to_string())?;
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(&dir));
        let device = line
            .and_then(|line| line.split(' ').next())
            .unwrap_or_default();
        self.name = device.trim_start_matches("/dev/").to_owned();
        Ok(())
    }

    fn unmount(&self) {
        run("umount", &[&text(&self.dir)]).expect("nobody uses the disk any more");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Processes that were killed a moment ago may still hold it; it goes with the last of them.
        let _ = run("umount", &["--lazy", &text(&self.dir)]);
        let _ = fs::remove_dir_all(self.image.parent().unwrap_or(&self.image));
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", args.join(" "), said.trim()))
}
