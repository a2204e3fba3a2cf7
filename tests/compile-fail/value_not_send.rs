use epoch_registry::Registry;

fn takes(_: &Registry<u64, std::rc::Rc<u64>>) {}

fn main() {
    let _ = takes;
}
