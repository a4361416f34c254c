// Package load attacks the real binary with more than it can want: whatever is
// sent, its memory stays bounded, and everybody else is served as before.
//
// The attacker is a process of its own that is as nice as can be, so that what
// others feel is the gateway's work for it and not its own. It is stopped and
// continued: quiet and attack are measured in turns, on the same machine at the same
// time, and compared.
package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(attackVariable); name != "" {
		attack(name)
		return
	}
	// Without -race, which multiplies memory and time.
	gatewaytest.Main(m, &binary)
}

// scene is a gateway under attack, and a user of it.
type scene struct {
	*gatewaytest.World
	t       *testing.T
	address string // of the public listener
	cookie  string // of the user's session
	client  *http.Client
	target  string // what the user asks for all the time
}

// newScene starts a gateway. Its upstream knows endless and slow answers, and one
// that is quick.
func newScene(t *testing.T, config map[string]any) *scene {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(upstream))
	t.Cleanup(up.Close)
	t.Cleanup(up.CloseClientConnections)
	s := &scene{t: t}
	s.World = gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users:  []devprovider.User{{Sub: "ada"}},
		Config: config,
		Routes: []any{
			map[string]any{"path": "/up/", "upstream": up.URL},
			map[string]any{"path": "/open/", "upstream": up.URL, "auth": "none"},
		},
	})
	s.Gateway.Start()
	origin, _ := url.Parse(s.Origin)
	s.address = "127.0.0.1:" + origin.Port()
	s.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a certificate of a minute ago
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.address)
		},
	}}
	s.target = s.Origin + "/open/quick"
	if origin.Scheme == "http" {
		ada := s.NewBrowser()
		if _, err := ada.Login("ada"); err != nil {
			t.Fatal(err)
		}
		s.cookie, s.target = "sessiongate="+ada.Session(), s.Origin+"/up/quick"
	}
	return s
}

// withTLS is a configuration for HTTP/2.
func withTLS(t *testing.T) map[string]any {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]any{}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: certificate}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		files[name] = path
	}
	return map[string]any{"tls": files, "limits": map[string]any{"write_timeout": "1s"}, "log": map[string]any{"level": "error"}}
}

// ask sends one request of the user.
func (s *scene) ask(path string) (*http.Response, error) {
	r, err := http.NewRequest("GET", path, nil)
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"X-Csrf": {"1"}, "Cookie": {s.cookie}}
	return s.client.Do(r)
}

// p99 is what the user feels for a while, a request after the other.
func (s *scene) p99(d time.Duration) time.Duration {
	var times []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end) || len(times) < 50; time.Sleep(time.Millisecond) {
		began := time.Now()
		res, err := s.ask(s.target)
		if err != nil {
			s.t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			s.t.Fatalf("the user's own request: %s", res.Status)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// rss is the gateway's memory, now or at most, in MiB.
func (s *scene) rss(field string) int {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Gateway.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(status)
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		s.t.Fatal(err)
	}
	return kb >> 10
}

// cpu is what the gateway has used.
func (s *scene) cpu() time.Duration {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Gateway.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	var ticks int
	for _, field := range strings.Fields(rest)[11:13] { // utime and stime (proc(5)), in hundredths
		n, err := strconv.Atoi(field)
		if err != nil {
			s.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// metric is the sum of all samples of a metric whose labels match.
func (s *scene) metric(pattern string) float64 {
	s.t.Helper()
	res, err := http.Get("http://" + s.Gateway.Admin() + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` (\S+)$`).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			s.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// attacker is the other process.
type attacker struct {
	t     *testing.T
	cmd   *exec.Cmd
	again *json.Decoder
}

// attackBy starts an attack, and returns when it has got to where it wants to be.
func (s *scene) attackBy(name string) *attacker {
	s.t.Helper()
	a := &attacker{t: s.t, cmd: exec.Command(os.Args[0])}
	a.cmd.Env = append(os.Environ(), attackVariable+"="+name, "ATTACK_ADDRESS="+s.address, "ATTACK_HOST="+strings.TrimPrefix(strings.TrimPrefix(s.Origin, "https://"), "http://"), "ATTACK_COOKIE="+s.cookie)
	a.cmd.Stderr = os.Stderr
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if a.cmd.ProcessState == nil {
			a.cmd.Process.Kill()
			a.cmd.Wait()
		}
	})
	a.again = json.NewDecoder(out)
	if ready := a.report(); ready["ready"] != 1 {
		s.t.Fatalf("the attacker says %v", ready)
	}
	return a
}

func (a *attacker) signal(sig syscall.Signal) {
	if err := a.cmd.Process.Signal(sig); err != nil {
		a.t.Fatal(err)
	}
}

// report is what the attacker says next: how often it saw what.
func (a *attacker) report() map[string]int {
	a.t.Helper()
	counts := map[string]int{}
	if err := a.again.Decode(&counts); err != nil {
		a.t.Fatalf("the attacker: %v", err)
	}
	return counts
}

// end asks for the last report.
func (a *attacker) end() map[string]int {
	a.t.Helper()
	a.signal(syscall.SIGCONT)
	a.signal(syscall.SIGINT)
	counts := a.report()
	a.cmd.Wait()
	return counts
}

const (
	quiet = 150 * time.Millisecond
	busy  = 250 * time.Millisecond
	// floor: what is quicker for everybody is nothing to complain of, and no more than
	// a turn of the scheduler on a machine that has other work, too.
	floor = 60 * time.Millisecond
)

// under measures an attack, and judges it: others wait at most twice as long, and
// the gateway's memory does not grow by more than so many MiB, and what the attacker
// does again and again costs the gateway no more than so much CPU each time; 0 where
// that says nothing. A busy machine gets more rounds to show that it was not the
// gateway.
func (s *scene) under(name string, most int, each time.Duration) (seen map[string]int) {
	s.t.Helper()
	s.p99(quiet) // warms up
	before := s.rss("VmRSS")
	a := s.attackBy(name)
	used := s.cpu()
	var calm, hot []time.Duration
	var without, with time.Duration
	for round := 1; round <= 7; round++ {
		a.signal(syscall.SIGCONT)
		hot = append(hot, s.p99(busy))
		a.signal(syscall.SIGSTOP)
		calm = append(calm, s.p99(quiet))
		without, with = median(calm), median(hot)
		if round >= 3 && (with <= 2*without || with <= floor) {
			break
		}
	}
	used = s.cpu() - used
	seen = a.end()
	acts := max(1, seen["sent"]+seen["cut off"])
	for what, n := range seen {
		if what[0] >= '1' && what[0] <= '5' && seen["sent"] == 0 {
			acts += n
		}
	}
	peak := s.rss("VmHWM")
	s.t.Logf("%-18s p99 %6.1f ms quiet, %6.1f ms under attack (%.1fx); RSS %d -> at most %d MiB; CPU %.0f µs for each of %d; %v",
		name, ms(without), ms(with), with.Seconds()/without.Seconds(), before, peak, used.Seconds()*1e6/float64(acts), acts, seen)
	if with > 2*without && with > floor {
		s.t.Errorf("%s: everybody else waits %v, and %v without it (99th percentiles, medians of %v and %v)", name, with, without, hot, calm)
	}
	if cost := used / time.Duration(acts); each > 0 && cost > each {
		s.t.Errorf("%s: each costs the gateway %v of CPU, want at most %v", name, cost, each)
	}
	if peak-before > most {
		s.t.Errorf("%s: the gateway's memory grew from %d to %d MiB, want at most %d more", name, before, peak, most)
	}
	return seen
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// upstream is the app's API.
func upstream(w http.ResponseWriter, r *http.Request) {
	switch _, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); name {
	case "quick":
		io.WriteString(w, "quick")
	case "endless":
		for r.Context().Err() == nil {
			if _, err := w.Write(zeros[:]); err != nil {
				return
			}
		}
	case "take":
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	case "give":
		n, _ := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		for ; n > 0; n -= int64(len(zeros)) {
			if _, err := w.Write(zeros[:min(n, int64(len(zeros)))]); err != nil {
				return
			}
		}
	case "echo":
		w.Header().Set("Content-Encoding", r.Header.Get("Content-Encoding"))
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	case "ws":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		io.Copy(io.Discard, conn)
	case "pour":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		frame := append([]byte{0x82, 126, 0xff, 0xff}, zeros[:0xffff]...)
		for err == nil {
			_, err = conn.Write(frame)
		}
	}
}

var zeros [64 << 10]byte
