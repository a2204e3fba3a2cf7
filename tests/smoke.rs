use epoch_registry::*;
#[test]
fn smoke() {
    let r: Registry<u64, u64> = Registry::builder().domain(Domain::new()).build();
    for i in 0..100_000 {
        r.insert(i, i * 2).unwrap();
    }
    let mut rd = r.reader();
    for i in 0..100_000 {
        assert_eq!(rd.get(&i).map(|e| *e), Some(i * 2), "{i}");
    }
    for i in 100_000..200_000 {
        assert!(rd.get(&i).is_none());
    }
    drop(rd);
    let mut n = 0;
    let mut s = 0;
    for e in r.pin().iter() {
        n += 1;
        s += *e.key();
    }
    assert_eq!((n, s), (100_000, 99_999 * 50_000));
    for i in 0..99_000 {
        assert_eq!(r.remove(&i).map(|h| *h), Some(i * 2));
    }
    println!("{}", r.stats());
    r.domain().barrier();
    println!("{}", r.stats());
    let st = r.stats();
    assert_eq!(st.freed, 99_000);
    assert_eq!(r.len(), 1000);
    for i in 99_000..100_000 {
        assert!(r.contains_key(&i));
    }
    let h = r.lookup(&99_500).unwrap();
    drop(r);
    assert_eq!(*h, 199_000);
}
