//! Writes: insert, unless taken, update, remove on a condition.

use epoch_registry::Registry;

fn main() {
    let stock: Registry<&str, u32> = Registry::new();

    // `insert` replaces, and returns the old entry. `set` does so without a handle.
    assert!(stock.insert("apples", 3).is_none());
    let old = stock.insert("apples", 5).unwrap();
    println!("{} apples were there, now {}", *old, *stock.lookup("apples").unwrap());

    // `try_insert` leaves a taken key alone, and gives key and value back.
    let occupied = stock.try_insert("apples", 100).unwrap_err();
    assert_eq!((occupied.value, *occupied.entry), (100, 5));

    // Values are shared, and therefore not changed in place: `update` replaces the entry by one made from it.
    let sold = stock.update("apples", |_, apples| apples - 2).unwrap();
    assert_eq!(*sold, 3);
    assert!(stock.update("pears", |_, pears| pears + 1).is_none());

    // The entry that is removed is one for which the condition held.
    assert!(stock.remove_if("apples", |_, apples| *apples == 0).is_none());
    assert!(stock.remove_if("apples", |_, apples| *apples == 3).is_some());

    // One value for all threads that ask for the key.
    let pears = stock.get_or_insert_with("pears", || 7);
    assert_eq!(*pears, 7);
    println!("{} kinds of fruit in stock", stock.len());
}
