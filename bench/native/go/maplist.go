package main

// mapList is the LRU cache that Go programs write by hand: a map to records on the heap, which are linked
// in order of recency. One record an entry is its leanest form; container/list needs two.
type mapList struct {
	capacity int
	nodes    map[Key]*node
	ring     node // its next is the most recent, its previous the least
}

type node struct {
	key            Key
	value          Value
	previous, next *node
}

func newMapList(capacity int) *mapList {
	cache := &mapList{capacity: capacity, nodes: make(map[Key]*node, capacity)}
	cache.ring.previous, cache.ring.next = &cache.ring, &cache.ring
	return cache
}

func (cache *mapList) get(key Key) (Value, bool) {
	found := cache.nodes[key]
	if found == nil {
		return Value{}, false
	}
	found.unlink()
	cache.pushFront(found)
	return found.value, true
}

func (cache *mapList) put(key Key, value Value) {
	if found := cache.nodes[key]; found != nil {
		found.value = value
		found.unlink()
		cache.pushFront(found)
		return
	}
	if len(cache.nodes) == cache.capacity {
		victim := cache.ring.previous
		victim.unlink()
		delete(cache.nodes, victim.key)
	}
	added := &node{key: key, value: value}
	cache.nodes[key] = added
	cache.pushFront(added)
}

func (cache *mapList) holds(key Key) bool {
	return cache.nodes[key] != nil
}

func (cache *mapList) pushFront(added *node) {
	added.previous, added.next = &cache.ring, cache.ring.next
	added.next.previous = added
	cache.ring.next = added
}

func (linked *node) unlink() {
	linked.previous.next = linked.next
	linked.next.previous = linked.previous
}
