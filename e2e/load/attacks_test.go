package load

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// limits of these tests: times that are soon over.
func limits(more map[string]any) map[string]any {
	l := map[string]any{"write_timeout": "1s", "body_timeout": "2s"}
	for key, value := range more {
		l[key] = value
	}
	return map[string]any{"limits": l, "log": map[string]any{"level": "error"}}
}

// What is done to the gateway, how much memory that may cost at most, in MiB, and
// what the attacker gets to see of it: at least one of want, and none of never.
func TestEverybodyElseIsServedDuring(t *testing.T) {
	trusted := limits(nil)
	trusted["trusted_proxies"] = []string{"127.0.0.1/32"}
	for _, row := range []struct {
		name   string // of the test
		attack string
		config map[string]any
		most   int
		want   string
		never  string
	}{
		{"HT-10 slow headers", "slow headers", limits(nil), 64, "", "200"},
		{"HT-10 slow bodies", "slow bodies", limits(nil), 128, "", "200"},
		{"HT-10 slow readers", "slow readers", limits(nil), 160, "cut off", ""},
		{"HT-10 header floods", "header flood", limits(nil), 64, "431", "200"},
		{"ten thousand idle connections", "10,000 idle", limits(nil), 320, "connections", "no connection"},
		{"OP-14 logins", "login", limits(nil), 64, "429 too_many_requests", "500"},
		{"OP-14 logins of many addresses by a trusted proxy", "login, addresses", trusted, 64, "302", "500"},
		{"junk cookies", "junk cookies", limits(nil), 64, "401 session_required", "503"},
		{"CVE-2024-24814 cookies that name a number of cookies", "many cookies", limits(nil), 64, "401 session_required", "500"},
		{"CVE-2025-22868 BC-11 logout tokens of dots", "logout tokens", limits(nil), 96, "400", "200"},
		{"WebSockets", "web sockets", limits(nil), 96, "429", "500"},
		{"CVE-2023-44487 rapid resets", "rapid reset", withTLS(t), 128, "sent", ""},
		{"CVE-2023-45288 CONTINUATION floods", "continuations", withTLS(t), 64, "cut off", "200"},
		{"CVE-2026-47774 cookie crumbs", "cookie crumbs", withTLS(t), 96, "", "200"},
		{"CVE-2026-47774 HPACK bombs", "hpack bomb", withTLS(t), 96, "", "200"},
		{"CVE-2019-9512 pings", "pings", withTLS(t), 96, "sent", ""},
		{"CVE-2019-9515 settings", "settings", withTLS(t), 96, "sent", ""},
		{"HT-10 HTTP/2 streams that nobody reads", "unread streams", withTLS(t), 160, "reset", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newScene(t, row.config)
			loads := s.metric(`sessiongate_store_seconds_count\{op="[a-z]*load[a-z]*"\}`)
			seen := s.under(row.attack, row.most)
			if row.want != "" && seen[row.want] == 0 || row.never != "" && seen[row.never] > 0 {
				t.Errorf("the attacker saw %v; want %q and never %q", seen, row.want, row.never)
			}
			if n := s.metric(`sessiongate_store_seconds_count\{op="[a-z]*load[a-z]*"\}`) - loads; row.attack == "junk cookies" && n > 2 {
				t.Errorf("the store was asked %v times", n)
			}
		})
	}
}

var _ = []any{bufio.NewReader, bytes.NewReader, gzip.NewReader, sha256.New, fmt.Sprint, io.Copy, net.Dial, http.Get, os.Getenv, strconv.Itoa, strings.Repeat, time.Now, devprovider.Fault{}}
