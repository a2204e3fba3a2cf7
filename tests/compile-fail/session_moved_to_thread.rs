use epoch_registry::Domain;

fn main() {
    let mut session = Domain::new().session();
    std::thread::spawn(move || session.quiescent());
}
