package redisstore

import (
	"context"
	"errors"
	"net"
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

func slots(b rueidis.Builder, _ bool) rueidis.Completed { return b.ClusterSlots().Build() }

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

// view is what a node of a Cluster says: the address of the master of each
// partition, "" where it knows of none.
func (f *following) view(answer rueidis.RedisResult, from string) ([]string, error) {
	ranges, err := answer.ToArray()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		return nil, err
	}
	var masters [numSlots]string
	for _, r := range ranges {
		parts, err := r.ToArray()
		if err != nil || len(parts) < 3 {
			return nil, errAnswer
		}
		first, err1 := parts[0].AsInt64()
		last, err2 := parts[1].AsInt64()
		master, err3 := parts[2].ToArray()
		if errors.Join(err1, err2, err3) != nil || len(master) < 2 || first < 0 || last >= int64(len(masters)) {
			return nil, errAnswer
		}
		addr := endpoint(master, host)
		for n := first; n <= last; n++ {
			masters[n] = addr
		}
	}
	f.masters.Store(&masters)
	where := make([]string, f.layout.partitions)
	for n := range where {
		where[n] = masters[slot(strconv.Itoa(n))]
	}
	return where, nil
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
	where, err := f.view(answer, nd.addr)
	if err != nil {
		return
	}
	elsewhere := map[int]string{}
	f.mu.Lock()
	for n, addr := range where {
		owner := f.owner[n]
		switch {
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
	f.mu.Unlock()
	f.adopt(elsewhere)
}

// survey asks some nodes who serves what nobody is known to serve, or somebody who
// is silent. The first answer counts. The other nodes are let answer, since others
// may be waiting for the connections that are made to ask them.
func (f *following) survey(ctx context.Context, client rueidis.Client) error {
	views := make(chan []string, asked)
	left := 0
	for addr, c := range client.Nodes() { // in no order
		if left == asked {
			break
		}
		left++
		f.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.opts.Timeout)
			defer cancel()
			where, err := f.view(c.Do(ctx, c.B().ClusterSlots().Build()), addr)
			if err != nil {
				where = nil
			}
			views <- where
		})
	}
	for ; left > 0; left-- {
		select {
		case where := <-views:
			if where != nil {
				f.adopt(f.orphans(where))
				return nil
			}
		case <-ctx.Done():
			return errSilent
		}
	}
	return errSlots
}

// orphans are the partitions of a view that nobody is known to serve, or somebody
// who is silent.
func (f *following) orphans(where []string) map[int]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[int]string{}
	for n, addr := range where {
		if owner := f.owner[n]; addr != "" && (owner == nil || f.silent(owner)) {
			found[n] = addr
		}
	}
	return found
}
