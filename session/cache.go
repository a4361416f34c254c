package session

import (
	"hash/maphash"
	"sync"
)

const cacheShards = 64

// cache holds opened sessions by the value of their cookie. A session is in it
// once; whoever ends or rewrites a session calls drop or publish, and these also
// reach openings under way, so that a record read before a change never lands
// here after it.
type cache struct {
	seed   maphash.Seed
	limit  int // sessions per shard
	shards [cacheShards]cacheShard

	mu    sync.Mutex // guards what follows; taken before a shard's
	byKey map[Key]*Session
	fills map[Key]*fill
	// tempers are of sessions that were taken out and have not ended.
	tempers map[Key]*temper
}

type cacheShard struct {
	mu       sync.RWMutex
	byCookie map[string]*Session
}

// fill is one key's openings under way.
type fill struct {
	openers int
	stale   bool
}

func newCache(size int) *cache {
	c := &cache{
		seed: maphash.MakeSeed(), limit: max(1, size/cacheShards),
		byKey: map[Key]*Session{}, fills: map[Key]*fill{}, tempers: map[Key]*temper{},
	}
	for i := range c.shards {
		c.shards[i].byCookie = map[string]*Session{}
	}
	return c
}

func (c *cache) shard(cookie string) *cacheShard {
	return &c.shards[maphash.String(c.seed, cookie)%cacheShards]
}

// get is the request path: one look-up, and a read lock nobody waits for.
func (c *cache) get(cookie string) *Session {
	sh := c.shard(cookie)
	sh.mu.RLock()
	s := sh.byCookie[cookie]
	sh.mu.RUnlock()
	return s
}

// holds tells whether this very session is in the cache.
func (c *cache) holds(s *Session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[s.key] == s
}

// open announces that the key's record is about to be read. Each call is
// followed by one of put, publish or giveUp.
func (c *cache) open(key Key) *fill {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fills[key]
	if f == nil {
		f = &fill{}
		c.fills[key] = f
	}
	f.openers++
	return f
}

func (c *cache) giveUp(key Key, f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(key, f)
}

func (c *cache) leave(key Key, f *fill) {
	if f.openers--; f.openers == 0 && c.fills[key] == f {
		delete(c.fills, key)
	}
}

// put adds what was read since open and returns the session to go on with: the
// one that is here already if somebody was faster, nil if the record changed
// meanwhile and has to be read again.
func (c *cache) put(s *Session, f *fill) *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(s.key, f)
	if f.stale {
		return nil
	}
	if former := c.byKey[s.key]; former != nil {
		if former.app == s.app {
			return former
		}
		c.remove(former) // of the app as it was before a reload, or is for requests that began then
	}
	if t := c.tempers[s.key]; t != nil && t.app == s.app {
		s.temper = t
	}
	delete(c.tempers, s.key)
	sh := c.shard(s.cookie)
	sh.mu.Lock()
	if len(sh.byCookie) >= c.limit {
		c.evict(sh)
	}
	sh.byCookie[s.cookie] = s
	sh.mu.Unlock()
	c.byKey[s.key] = s
	return s
}

// evict makes room by dropping the least recently used of a few, as Redis does:
// map order is random, so any few will do.
func (c *cache) evict(sh *cacheShard) {
	var oldest *Session
	n := 0
	for _, s := range sh.byCookie {
		if oldest == nil || s.used.Load() < oldest.used.Load() {
			oldest = s
		}
		if n++; n == 5 {
			break
		}
	}
	delete(sh.byCookie, oldest.cookie)
	delete(c.byKey, oldest.key)
	if !oldest.calm() {
		c.remember(oldest)
	}
}

func (c *cache) remove(s *Session) {
	sh := c.shard(s.cookie)
	sh.mu.Lock()
	delete(sh.byCookie, s.cookie)
	sh.mu.Unlock()
	delete(c.byKey, s.key)
	c.remember(s)
}

// remember keeps the temper of a session for when it is read anew, for as many as
// may be open.
func (c *cache) remember(s *Session) {
	if s.end.Load() != nil {
		return
	}
	if len(c.tempers) >= c.limit*cacheShards {
		for other := range c.tempers {
			delete(c.tempers, other)
			break
		}
	}
	c.tempers[s.key] = s.temper
}

// drop takes a session out because it ended (end says how) or because its record
// changed elsewhere (nil), and returns it, if it was here.
func (c *cache) drop(key Key, end *Ended) *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outdate(key)
	if end != nil {
		delete(c.tempers, key)
	}
	s := c.byKey[key]
	if s == nil {
		return nil
	}
	if end != nil {
		s.end.CompareAndSwap(nil, end)
	}
	c.remove(s)
	return s
}

// those lists sessions that are open, and makes openings under way begin anew.
func (c *cache) those(are func(*Session) bool) []*Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.fills {
		c.outdate(key)
	}
	var all []*Session
	for _, s := range c.byKey {
		if are(s) {
			all = append(all, s)
		}
	}
	return all
}

// publish gives the session of this key, if it is here, newer tokens, and tells
// whether it is as it was at open: neither dropped nor flushed.
func (c *cache) publish(key Key, o *opened, f *fill) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	same := !f.stale
	c.outdate(key) // f with it
	if s := c.byKey[key]; s != nil {
		s.adopt(o)
	}
	return same
}

func (c *cache) outdate(key Key) {
	if f := c.fills[key]; f != nil {
		f.stale = true
		delete(c.fills, key) // later openings read what is true now
	}
}

// reset empties the cache, and forgets tempers: keys or configuration changed.
func (c *cache) reset() {
	c.flush()
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.tempers)
}

// flush empties the cache: sessions may have changed elsewhere.
func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.fills {
		c.outdate(key)
	}
	for _, s := range c.byKey {
		c.remove(s)
	}
}
