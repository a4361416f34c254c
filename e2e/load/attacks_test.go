package load

import (
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

// What is done to the gateway; how much memory that may cost at most, in MiB, and
// how much CPU each time; and what the attacker gets to see of it: some of want, and
// nothing of never.
func TestEverybodyElseIsServedDuring(t *testing.T) {
	trusted := limits(nil)
	trusted["trusted_proxies"] = []string{"127.0.0.1/32"}
	for _, row := range []struct {
		name   string // of the test
		attack string
		config map[string]any
		most   int
		each   time.Duration
		want   string
		never  string
	}{
		{"HT-10 slow headers", "slow headers", limits(nil), 64, 0, "", "200"},
		{"HT-10 slow bodies", "slow bodies", limits(nil), 128, 0, "", "200"},
		{"HT-10 slow readers", "slow readers", limits(nil), 160, 0, "cut off", ""},
		{"HT-10 header floods", "header flood", limits(nil), 64, 5 * time.Millisecond, "431", "200"},
		{"ten thousand idle connections", "10,000 idle", limits(nil), 320, 0, "connections", "no connection"},
		{"OP-14 logins", "login", limits(nil), 64, 250 * time.Microsecond, "429 too_many_requests", "500"},
		{"OP-14 logins of many addresses by a trusted proxy", "login, addresses", trusted, 64, 500 * time.Microsecond, "302", "500"},
		{"junk cookies", "junk cookies", limits(nil), 64, 250 * time.Microsecond, "401 session_required", "503"},
		{"CVE-2024-24814 cookies that name a number of cookies", "many cookies", limits(nil), 64, 2 * time.Millisecond, "401 session_required", "500"},
		{"CVE-2025-22868 BC-11 logout tokens of dots", "logout tokens", limits(nil), 96, 8 * time.Millisecond, "400", "200"},
		{"WebSockets", "web sockets", limits(nil), 96, 0, "429", "500"},
		{"CVE-2023-44487 rapid resets", "rapid reset", withTLS(t), 128, 2 * time.Millisecond, "sent", ""},
		{"CVE-2023-45288 CONTINUATION floods", "continuations", withTLS(t), 64, 5 * time.Millisecond, "cut off", "200"},
		{"CVE-2026-47774 cookie crumbs", "cookie crumbs", withTLS(t), 96, 10 * time.Millisecond, "", "200"},
		{"CVE-2026-47774 HPACK bombs", "hpack bomb", withTLS(t), 96, 10 * time.Millisecond, "", "200"},
		{"CVE-2019-9512 pings", "pings", withTLS(t), 96, 2 * time.Millisecond, "sent", ""},
		{"CVE-2019-9515 settings", "settings", withTLS(t), 96, 2 * time.Millisecond, "sent", ""},
		{"HT-10 HTTP/2 streams that nobody reads", "unread streams", withTLS(t), 160, 0, "reset", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newScene(t, row.config)
			loads := s.metric(`sessiongate_store_seconds_count\{op="load"\}`)
			seen := s.under(row.attack, row.most, row.each)
			if row.want != "" && seen[row.want] == 0 || row.never != "" && seen[row.never] > 0 {
				t.Errorf("the attacker saw %v; want %q and never %q", seen, row.want, row.never)
			}
			if row.attack != "junk cookies" {
				return
			}
			if n := s.metric(`sessiongate_store_seconds_count\{op="load"\}`) - loads; n > 2 {
				t.Errorf("the store was asked %v times", n)
			}
			// What it is asked for shows there: a cookie of ours whose session is over.
			ada := s.NewBrowser()
			if _, err := ada.Login("ada"); err != nil {
				t.Fatal(err)
			}
			former := ada.Steal(s.World, ada.Session())
			if err := ada.Logout(); err != nil {
				t.Fatal(err)
			}
			loads = s.metric(`sessiongate_store_seconds_count\{op="load"\}`)
			if _, err := former.Call(); err != nil {
				t.Fatal(err)
			}
			if n := s.metric(`sessiongate_store_seconds_count\{op="load"\}`) - loads; n < 1 {
				t.Error("the store's metrics do not show what it is asked")
			}
		})
	}
}

// A hundred thousand logins without a cookie: their address is told to wait, and
// nothing of them is kept.
func TestOP14AHundredThousandLogins(t *testing.T) {
	const logins = 100_000
	s := newScene(t, limits(nil))
	before, used := s.rss("VmRSS"), s.cpu()
	began := time.Now()
	a := s.attackBy("login")
	sent := func() float64 { return s.metric(`sessiongate_requests_total\{.*status="429"\}`) }
	for sent() < logins {
		if time.Since(began) > time.Minute {
			t.Fatalf("only %v logins in a minute", sent())
		}
		time.Sleep(100 * time.Millisecond)
	}
	seen := a.end()
	peak := s.rss("VmHWM")
	t.Logf("%v in %v: RSS %d -> at most %d MiB, %v CPU", seen, time.Since(began).Round(time.Millisecond), before, peak, s.cpu()-used)
	if peak-before > 64 {
		t.Errorf("the gateway's memory grew from %d to %d MiB", before, peak)
	}
	if allowed := 60 + int(time.Since(began).Minutes()*60) + 2; seen["302"] > allowed {
		t.Errorf("%d logins of one address were begun, want at most %d", seen["302"], allowed)
	}
}

// largeBody is how much is sent each way: 5 GB with SESSIONGATE_LOAD=full.
func largeBody() int64 {
	if os.Getenv("SESSIONGATE_LOAD") == "full" {
		return 5 << 30
	}
	return 512 << 20
}

func TestPX25LargeBodiesStream(t *testing.T) {
	size := largeBody()
	s := newScene(t, limits(nil))
	s.client.Timeout = 0
	before := s.rss("VmRSS")
	began := time.Now()
	r, err := http.NewRequest("POST", s.Origin+"/up/take", io.LimitReader(zeroes{}, size))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = size
	r.Header = http.Header{"X-Csrf": {"1"}, "Cookie": {s.cookie}}
	res, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	took, _ := io.ReadAll(res.Body)
	res.Body.Close()
	up := time.Since(began)
	if string(took) != strconv.FormatInt(size, 10) {
		t.Errorf("the upstream took %s %s of %d bytes", res.Status, took, size)
	}
	began = time.Now()
	if res, err = s.ask(s.Origin + "/up/give?bytes=" + strconv.FormatInt(size, 10)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if n != size || err != nil {
		t.Errorf("the browser got %d of %d bytes, %v", n, size, err)
	}
	peak := s.rss("VmHWM")
	t.Logf("%d MiB up in %v and down in %v: RSS %d -> at most %d MiB", size>>20, up.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), before, peak)
	if peak-before > 24 {
		t.Errorf("the gateway's memory grew from %d to %d MiB", before, peak)
	}
}

// zeroes never ends.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A bomb passes both ways as the bytes it is: nothing is ever unpacked here.
func TestHT10CompressedBodiesAreNotUnpacked(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.Copy(z, io.LimitReader(zeroes{}, 64<<20)); err != nil {
		t.Fatal(err)
	}
	z.Close()
	want := sha256.Sum256(bomb.Bytes())
	s := newScene(t, limits(nil))
	before, used := s.rss("VmRSS"), s.cpu()
	for range 4 {
		r, err := http.NewRequest("POST", s.Origin+"/up/echo", bytes.NewReader(bomb.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"X-Csrf": {"1"}, "Cookie": {s.cookie}, "Content-Encoding": {"gzip"}, "Accept-Encoding": {"gzip"}}
		res, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if sha256.Sum256(body) != want || res.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s %v: %d bytes, want the %d that were sent", res.Status, res.Header, len(body), bomb.Len())
		}
	}
	peak := s.rss("VmHWM")
	t.Logf("%d bytes that are 64 MiB: RSS %d -> at most %d MiB, %v CPU", bomb.Len(), before, peak, s.cpu()-used)
	if peak-before > 24 || s.cpu()-used > time.Second {
		t.Errorf("the gateway's memory grew from %d to %d MiB, and it took %v of CPU", before, peak, s.cpu()-used)
	}
}

// What the provider says without end is not waited for, nor kept (OP-08).
func TestOP08HugeAnswersOfTheProvider(t *testing.T) {
	for _, endpoint := range []devprovider.Endpoint{devprovider.Code, devprovider.JWKS, devprovider.Discovery} {
		t.Run(string(endpoint), func(t *testing.T) {
			s := newScene(t, limits(nil))
			s.Gateway.Stop() // or what is known already is not asked for
			s.Provider.Fail(devprovider.Fault{Huge: 1 << 30}, endpoint)
			s.Gateway.Start()
			before := s.rss("VmRSS")
			began := time.Now()
			_, err := s.NewBrowser().Login("ada")
			if err == nil {
				t.Error("logged in")
			}
			peak := s.rss("VmHWM")
			t.Logf("refused after %v: RSS %d -> at most %d MiB", time.Since(began).Round(time.Millisecond), before, peak)
			if peak-before > 32 || time.Since(began) > 15*time.Second {
				t.Errorf("the gateway's memory grew from %d to %d MiB in %v", before, peak, time.Since(began))
			}
			if res, err := s.ask(s.target); err != nil || res.StatusCode != 200 {
				t.Errorf("whoever is logged in: %v, %v", res, err)
			}
		})
	}
}

// Each silence has its end and its answer.
func TestHT10WhoDoesNotComeToAnEnd(t *testing.T) {
	s := newScene(t, limits(nil))
	host := strings.TrimPrefix(s.Origin, "http://")
	user := "Host: " + host + "\r\nX-CSRF: 1\r\nCookie: " + s.cookie + "\r\n"
	for _, row := range []struct {
		name, request string
		soon, late    time.Duration // when the connection ends
		want          string        // in the answer; "": there is none
	}{
		{"headers", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-Slow: ", 9 * time.Second, 15 * time.Second, ""},
		{"a body", "POST /up/take HTTP/1.1\r\n" + user + "Content-Length: 1000\r\n\r\nabc", 2 * time.Second, 6 * time.Second, "request_timeout"},
		{"headers that are too large", "GET / HTTP/1.1\r\n" + user + "X-Large: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 0, 6 * time.Second, " 431 "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			go io.WriteString(c, row.request)
			c.SetReadDeadline(began.Add(30 * time.Second))
			answer, _ := io.ReadAll(c)
			if d := time.Since(began); d < row.soon || d > row.late {
				t.Errorf("ended after %v, want %v to %v", d, row.soon, row.late)
			}
			if row.want == "" && len(answer) > 0 || !strings.Contains(string(answer), row.want) {
				t.Errorf("the answer: %q, want %q in it", answer, row.want)
			}
			if row.want == "request_timeout" && (!bytes.Contains(answer, []byte(" 408 ")) || !bytes.Contains(answer, []byte("application/problem+json"))) {
				t.Errorf("the answer: %q, want a problem with status 408", answer)
			}
		})
	}
	for _, row := range []struct {
		name, path string
	}{{"a download", "/up/endless"}, {"a WebSocket", "/up/pour"}} {
		t.Run(row.name+" that nobody reads", func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.(*net.TCPConn).SetReadBuffer(4096)
			began := time.Now()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\n%sOrigin: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", row.path, user, s.Origin)
			for time.Since(began) < 10*time.Second {
				time.Sleep(100 * time.Millisecond)
				if _, err := io.WriteString(c, "\x00"); err != nil {
					break // it has been reset
				}
			}
			if d := time.Since(began); d < time.Second || d > 8*time.Second {
				t.Errorf("cut off after %v, want a second or two", d)
			}
		})
	}
}
