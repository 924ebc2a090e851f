//! `pids.max`, the same file in v1 and v2.

use super::Limits;
use super::directory::Write;

pub(super) fn plan(limits: &Limits) -> Vec<Write> {
    let max = limits.pids.map(|max| if max > 0 { max.to_string() } else { "max".to_owned() });
    max.into_iter().map(|max| Write::new("pids.max", max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_less_is_no_limit() {
        let value = |pids| plan(&Limits { pids, ..Limits::default() }).first().map(Write::to_string);
        assert_eq!(value(None), None);
        assert_eq!(value(Some(100)).unwrap(), "pids.max=100");
        assert_eq!(value(Some(0)).unwrap(), "pids.max=max");
        assert_eq!(value(Some(-1)).unwrap(), "pids.max=max");
    }
}
