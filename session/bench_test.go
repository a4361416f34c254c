package session_test

import (
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
