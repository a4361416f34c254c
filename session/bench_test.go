package session_test

import (
	"runtime"
	"strings"
	"testing"

	"sessiongate/session"
)

// The request path: the cookie's session is open and its token fresh.
func BenchmarkHit(b *testing.B) {
	bench := newBench(b)
	r := request(bench.login())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := bench.Session(r)
			if err != nil {
				b.Fatal(err)
			}
			s.Use()
			if _, err := s.AccessToken(r.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The cold path: cookie verified, record read and unsealed.
func BenchmarkCold(b *testing.B) {
	bench := newBench(b)
	r := request(bench.login())
	keys := newKeys(b)
	b.ReportAllocs()
	for b.Loop() {
		bench.manager.Reconfigure(keys, idle, lifetime) // empties the cache
		if _, err := bench.Session(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLogin(b *testing.B) {
	bench := newBench(b)
	token := bench.provider.issue()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := bench.Create(b.Context(), session.Login{Subject: "ada", SID: "sid", Claims: []byte("{}"), Token: token}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBytesInMemory tells how much of a gateway's memory an opened session
// takes, with tokens of 2 KB.
func BenchmarkBytesInMemory(b *testing.B) {
	bench := newBench(b, func(b *bench) { b.config.CacheSize = 1 << 20 })
	token := strings.Repeat("x", 2000)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, n := heap(), 0
	for b.Loop() {
		bench.login(func(l *session.Login) { l.Token.AccessToken = token + l.Token.AccessToken })
		n++
	}
	b.ReportMetric(float64(heap()-before)/float64(n), "B/session")
	runtime.KeepAlive(bench)
}
