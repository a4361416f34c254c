package redisstore

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// asked is how many nodes of a Cluster are asked who serves what, when it is not
// known.
const asked = 3

// numSlots is how many slots there are.
const numSlots = 16384

var errSlots = errors.New("no node of the Cluster tells who serves what")

func clusterSlots(b rueidis.Builder, _ bool) rueidis.Completed { return b.ClusterSlots().Build() }

// slot is that of a hash tag (Redis Cluster specification, "Hash tags": CRC16 by
// XMODEM).
func slot(tag string) int {
	var crc uint16
	for _, c := range []byte(tag) {
		crc ^= uint16(c) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % numSlots)
}

// view is what a node of a Cluster says of who serves what, in the order of the
// slots.
type view []span

// span is some slots, and the address of their master.
type span struct {
	first, last int64
	addr        string
}

// master is the address of a slot's master, "" if there is none.
func (v view) master(slot int) string {
	i, _ := slices.BinarySearchFunc(v, int64(slot), func(s span, slot int64) int { return cmp.Compare(s.last, slot) })
	if i == len(v) || v[i].first > int64(slot) {
		return ""
	}
	return v[i].addr
}

// viewOf reads the answer of a node to CLUSTER SLOTS.
func viewOf(answer rueidis.RedisResult, from string) (view, error) {
	ranges, err := answer.ToArray()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		return nil, err
	}
	var v view
	for _, r := range ranges {
		parts, err := r.ToArray()
		if err != nil || len(parts) < 3 {
			return nil, errAnswer
		}
		first, err1 := parts[0].AsInt64()
		last, err2 := parts[1].AsInt64()
		master, err3 := parts[2].ToArray()
		if errors.Join(err1, err2, err3) != nil || len(master) < 2 {
			return nil, errAnswer
		}
		if addr := endpoint(master, host); addr != "" {
			v = append(v, span{first, last, addr})
		}
	}
	slices.SortFunc(v, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return v, nil
}

// endpoint is a node's address. One that does not know its own is where it was
// asked.
func endpoint(parts []rueidis.RedisMessage, host string) string {
	name, err := parts[0].ToString()
	port, err2 := parts[1].AsInt64()
	if err2 != nil || name == "?" {
		return ""
	}
	if err != nil || name == "" { // null, or empty
		name = host
	}
	return net.JoinHostPort(name, strconv.FormatInt(port, 10))
}

// says hears a master out, that was asked at a time: what it calls its own is
// proved, and read elsewhere what it calls others'. Where two masters call
// themselves the owner, or one is called so by another, nothing is proved: the one
// by which it is read may be the last to learn that it was deposed.
func (f *following) says(nd *node, answer rueidis.RedisResult, sent time.Duration, writes bool) {
	v, err := viewOf(answer, nd.addr)
	if err != nil {
		return
	}
	f.masters.Store(&v)
	elsewhere := map[int]string{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, owner := range f.owner {
		switch addr := v.master(f.slots[n]); {
		case sent < f.since[n]: // it did not know then
		case owner == nil || owner == nd && addr != nd.addr || owner != nd && addr == nd.addr && f.silent(owner):
			if addr != "" {
				elsewhere[n] = addr
			}
		case owner == nd:
			if writes {
				f.proved(nd, sent, n)
			}
		case addr != owner.addr:
			f.disputed[n] = f.now()
		}
	}
	f.move(elsewhere)
}

// survey asks some nodes who serves what nobody is known to serve, or somebody who
// is silent. The first answer counts. The other nodes are let answer, since others
// may be waiting for the connections that are made to ask them.
func (f *following) survey(ctx context.Context, client rueidis.Client) error {
	views := make(chan view, asked)
	left := 0
	for addr, c := range client.Nodes() { // in no order
		if left == asked {
			break
		}
		left++
		f.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.opts.Timeout)
			defer cancel()
			v, err := viewOf(c.Do(ctx, c.B().ClusterSlots().Build()), addr)
			if err != nil {
				v = nil
			}
			views <- v
		})
	}
	for ; left > 0; left-- {
		select {
		case v := <-views:
			if v != nil {
				f.masters.Store(&v)
				f.adoptOrphans(v)
				return nil
			}
		case <-ctx.Done():
			return errSilent
		}
	}
	return errSlots
}

// adoptOrphans has partitions read where a view says that nobody is known to serve,
// or somebody who is silent.
func (f *following) adoptOrphans(v view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[int]string{}
	for n, owner := range f.owner {
		if addr := v.master(f.slots[n]); addr != "" && (owner == nil || f.silent(owner)) {
			found[n] = addr
		}
	}
	f.move(found)
}
