//! `hugetlb.SIZE.*`, by use and, where the kernel has it, by reservation; v1 and v2 differ in the names only.

use super::directory::{Directory, Write};
use super::hierarchy::Place;
use super::{Error, Limits};

pub(super) fn plan(limits: &Limits, place: &Place) -> Result<Vec<Write>, Error> {
    let (directory, suffix): (&Directory, _) = match place {
        Place::V1(directory) => (directory, "limit_in_bytes"),
        Place::V2(directory) => (directory, "max"),
    };
    let mut writes = Vec::new();
    for page in &limits.hugepages {
        let file = format!("hugetlb.{}.{suffix}", page.size);
        if !directory.has(&file) {
            // The kubelet asks for 0 of every size it knows; a host without that size gives as many.
            if page.limit == 0 {
                continue;
            }
            return Err(Error::InvalidLimit {
                limit: "hugepageLimits".to_owned(),
                value: page.size.clone(),
                reason: "the host has no huge pages of this size",
            });
        }
        writes.push(Write::new(file, page.limit.to_string()));
        let reserved = format!("hugetlb.{}.rsvd.{suffix}", page.size);
        writes.push(Write::new(reserved, page.limit.to_string()).or_skip());
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::HugepageLimit;
    use crate::cgroup::fixture::directory_of;

    fn writes(place: &Place, pages: &[(&str, u64)]) -> Result<Vec<String>, Error> {
        let hugepages = pages
            .iter()
            .map(|(size, limit)| HugepageLimit { size: (*size).to_owned(), limit: *limit })
            .collect();
        let limits = Limits { hugepages, ..Limits::default() };
        Ok(plan(&limits, place)?.iter().map(Write::to_string).collect())
    }

    #[test]
    fn limits_use_and_reservation() {
        let (_root, directory) = directory_of(&[("hugetlb.2MB.max", "max")]);
        let expected = ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"];
        assert_eq!(writes(&Place::V2(directory), &[("2MB", 4 << 20), ("1GB", 0)]).unwrap(), expected);
        let (_root, directory) = directory_of(&[("hugetlb.1GB.limit_in_bytes", "0")]);
        let expected = ["hugetlb.1GB.limit_in_bytes=0", "hugetlb.1GB.rsvd.limit_in_bytes=0"];
        assert_eq!(writes(&Place::V1(directory), &[("1GB", 0)]).unwrap(), expected);
    }

    #[test]
    fn refuses_a_size_that_the_host_lacks() {
        let (_root, directory) = directory_of(&[]);
        let error = writes(&Place::V2(directory), &[("1GB", 1 << 30)]).unwrap_err();
        let text = "hugepageLimits \"1GB\" is not valid: the host has no huge pages of this size";
        assert_eq!(error.to_string(), text);
    }
}
