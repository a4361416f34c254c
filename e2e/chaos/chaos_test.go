// Package chaos treats gateways, store and provider as badly as machines do, at
// random and under load: they are killed, stand still and are restarted, and what
// every client was told has to stay true. The store is a real redis-server that
// writes before it acknowledges, or a file; the provider takes no refresh token
// twice. The provider that is killed is a process in front of it: what it rotated
// before it died stays rotated.
package chaos

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

var binary string

func TestMain(m *testing.M) {
	gatewaytest.ServeRelay()
	flag.Parse()
	flag.Set("test.parallel", "6") // they mostly wait
	gatewaytest.Main(m, &binary, "-race")
}

// everyday is the length of a short form.
const everyday = 15 * time.Second

// rounds is how many rounds a scenario takes that counts them: so many in a short
// form.
func rounds(t *testing.T, n int) int {
	t.Helper()
	return n * max(1, int(length(t)/everyday))
}

// length is how long each random scenario goes on: SESSIONGATE_CHAOS, or what a
// test of everyday has time for.
func length(t *testing.T) time.Duration {
	t.Helper()
	text, given := os.LookupEnv("SESSIONGATE_CHAOS")
	if !given {
		return everyday
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("SESSIONGATE_CHAOS=%s is no duration", text)
	}
	return d
}

// seed is that of SESSIONGATE_CHAOS_SEED, or a new one. It repeats what is done to
// whom, and what people want; not which of two processes is faster.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text, given := os.LookupEnv("SESSIONGATE_CHAOS_SEED"); given {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SESSIONGATE_CHAOS_SEED=%s is no seed", text)
		}
	}
	t.Logf("SESSIONGATE_CHAOS_SEED=%d", n)
	return n
}

// TestChaos: no logout that was acknowledged is undone, no session that was
// acknowledged is lost but in the one case that can't be helped, and no failure
// is without a cause.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		setting
	}{
		{"one gateway with a file", setting{gateways: 1, people: 6, tokenTTL: time.Second}},
		{"three gateways with Redis", setting{gateways: 3, redis: true, people: 8, tokenTTL: 2 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seed := seed(t)
			w := newWorld(t, tt.setting, seed)
			m := &monkey{w, rand.New(rand.NewPCG(seed, 1<<32))}
			begun, n := time.Now(), 0
			for ; time.Since(begun) < length(t) && !t.Failed(); n++ {
				m.round(n)
			}
			w.account()
			t.Logf("%d rounds in %v", n, time.Since(begun).Round(time.Second))
			if w.history.count(gatewayKill) == 0 || w.count.calls.Load() < 50 || w.count.logins.Load() == 0 {
				t.Error("so little happened that it proves nothing")
			}
		})
	}
}
