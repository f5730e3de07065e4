//! How much memory there is for downloads.

use std::{fs, path::Path};

use crate::blobs::LEAST_MEMORY;

/// What downloads take where there is plenty.
const USUAL: u64 = 128 << 20;

/// What downloads may take by default where the control group has a limit: programs, indexes and
/// pages of the cache live there too.
pub(super) fn default_limit(of_group: Option<u64>) -> u64 {
    of_group.map_or(USUAL, |limit| (limit / 4).clamp(LEAST_MEMORY, USUAL))
}

/// The memory of this process's control group, if that is limited: the least of its own limit and
/// those of the groups above it.
pub(super) fn of_control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_below(Path::new("/sys/fs/cgroup"), &groups)
}

fn limit_below(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = folder.join(group.trim_start_matches('/'));
        let up = group.ancestors().take_while(|above| above.starts_with(&folder));
        let read = |group: &Path| fs::read_to_string(group.join(file)).ok();
        up.filter_map(|group| read(group)?.trim().parse::<u64>().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_small_group_is_taken_and_never_more_than_usual() {
        assert_eq!(default_limit(None), USUAL);
        assert_eq!(default_limit(Some(64 << 30)), USUAL);
        assert_eq!(default_limit(Some(256 << 20)), 64 << 20);
        assert_eq!(default_limit(Some(1 << 20)), LEAST_MEMORY);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts_in_both_kinds_of_groups() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("jobs/memory.max", "1000\n");
        put("jobs/one/memory.max", "max\n");
        put("memory/jobs/memory.limit_in_bytes", "500\n");
        assert_eq!(limit_below(root.path(), "0::/jobs/one\n"), Some(1000));
        assert_eq!(limit_below(root.path(), "3:cpu:/jobs\n4:memory,x:/jobs\n"), Some(500));
        assert_eq!(limit_below(root.path(), "0::/elsewhere\n"), None);
    }
}
