pub fn check(_: &[u8]) {}

pub fn seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
