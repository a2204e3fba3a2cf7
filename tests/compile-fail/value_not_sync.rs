use epoch_registry::Registry;

fn takes(_: &Registry<u64, std::cell::Cell<u64>>) {}

fn main() {
    let _ = takes;
}
