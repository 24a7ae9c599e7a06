package main

// Key and Value are Read States, the workload that all native peers share.
type Key struct{ UserID, ChannelID uint64 }

type Value struct {
	LastMessageID uint64
	MentionCount  uint32
	LastPinTS     uint64
}

// valueOf is the record of a key: two large numbers and a small one, as in the service.
func valueOf(key Key) Value {
	return Value{
		LastMessageID: key.UserID ^ key.ChannelID,
		MentionCount:  uint32(key.ChannelID & 7),
		LastPinTS:     key.ChannelID >> 22,
	}
}

// workload has all keys of one run: key number i is the same in every program.
// A seed has numbers of its own, the first half for keys, the second for draws.
type workload struct{ entries, base uint64 }

const (
	seedBits = 40
	draws    = 1 << (seedBits - 1)
)

func newWorkload(entries, seed uint64) workload {
	return workload{entries: entries, base: seed << seedBits}
}

func (work workload) key(number uint64) Key {
	first := work.base + 2*number
	return Key{UserID: splitmix(first), ChannelID: splitmix(first + 1)}
}

// draw is one of the first keys, as many as there are entries, at random.
func (work workload) draw(number uint64) Key {
	return work.key(splitmix(work.base+draws+number) % work.entries)
}

// shuffled has the numbers of those keys in random order.
func (work workload) shuffled() []uint32 {
	order := make([]uint32, work.entries)
	for number := range order {
		order[number] = uint32(number)
	}
	for last := uint64(len(order)) - 1; last > 0; last-- {
		other := splitmix(last) % (last + 1)
		order[last], order[other] = order[other], order[last]
	}
	return order
}

// splitmix is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a hash: different numbers, different results.
func splitmix(number uint64) uint64 {
	mixed := (number + 1) * 0x9E3779B97F4A7C15
	mixed = (mixed ^ mixed>>30) * 0xBF58476D1CE4E5B9
	mixed = (mixed ^ mixed>>27) * 0x94D049BB133111EB
	return mixed ^ mixed>>31
}
