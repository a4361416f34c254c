package oidc

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiterRegainsTokensAndForgets(t *testing.T) {
	l := limiter{perMinute: 60}
	now := time.Now()
	for range 60 {
		if wait := l.take("192.0.2.1", now); wait != 0 {
			t.Fatalf("wait %v within the limit", wait)
		}
	}
	if wait := l.take("192.0.2.1", now); wait <= 0 || wait > time.Second {
		t.Errorf("wait = %v, want up to 1 s", wait)
	}
	if wait := l.take("192.0.2.1", now.Add(time.Second)); wait != 0 {
		t.Errorf("wait = %v a second later, want none", wait)
	}
	for i := range 3 * maxBuckets {
		l.take(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff), now)
	}
	if n := len(l.buckets); n > maxBuckets {
		t.Errorf("%d buckets, want at most %d", n, maxBuckets)
	}
}
