//! Sleeps until it is killed: the entry point of the stand-in for the pause image.

fn main() {
    loop {
        std::thread::park();
    }
}
