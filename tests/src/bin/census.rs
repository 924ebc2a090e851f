//! Prints everything on this machine that bears the mark of Corten or of its tests, sorted, one thing a
//! line. `hack/test` compares what it prints before the tests with what it prints after them.

fn main() -> corten_tests::Result {
    for line in corten_tests::census::of_machine()? {
        println!("{line}");
    }
    Ok(())
}
