package oidc

import (
	"net/netip"
	"sync"
	"time"
)

// limiter counts logins by client address: a token bucket each, that holds and
// regains perMinute tokens. Its memory is bounded.
type limiter struct {
	perMinute int // 0: no limit

	mu      sync.Mutex // guards buckets and swept
	buckets map[string]bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

const maxBuckets = 1 << 14

// take takes a token, or returns after how long there will be one.
func (l *limiter) take(address string, now time.Time) time.Duration {
	if l.perMinute <= 0 {
		return 0
	}
	rate := float64(l.perMinute) / time.Minute.Seconds()
	key := network(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[key]
	if !ok {
		l.makeRoom(now, rate)
		b = bucket{float64(l.perMinute), now}
	}
	b.tokens = min(float64(l.perMinute), b.tokens+now.Sub(b.at).Seconds()*rate)
	b.at = now
	defer func() { l.buckets[key] = b }()
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / rate * float64(time.Second))
	}
	b.tokens--
	return 0
}

// makeRoom forgets whoever has a full bucket again and, if that is not enough,
// anybody: rather too many logins than too much memory.
func (l *limiter) makeRoom(now time.Time, rate float64) {
	if l.buckets == nil {
		l.buckets = make(map[string]bucket)
	}
	if len(l.buckets) < maxBuckets {
		return
	}
	if now.Sub(l.swept) > time.Second {
		l.swept = now
		for key, b := range l.buckets {
			if b.tokens+now.Sub(b.at).Seconds()*rate >= float64(l.perMinute) {
				delete(l.buckets, key)
			}
		}
	}
	for key := range l.buckets {
		if len(l.buckets) < maxBuckets {
			return
		}
		delete(l.buckets, key)
	}
}

// network is what one client has: an IPv4 address or an IPv6 /64.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		p, _ := ip.Prefix(64) // errs on lengths beyond 128 only
		return p.String()
	}
	return ip.String()
}
