package cut

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// people is how many call, by both gateways, while the server fails.
const people = 8

// crowd is people who are logged in and call.
type crowd struct {
	*world
	browsers []*gatewaytest.Browser
	// leaver calls nothing, and left has the same session.
	leaver, left *gatewaytest.Browser
	stop         func()

	mu    sync.Mutex // guards told
	told  map[string]int
	wrong int
}

// gather starts the gateways, logs everybody in and lets them call until the test
// is over. May tells what may be answered besides 200 and 503.
func gather(w *world, may func(*gatewaytest.Answer) bool) *crowd {
	w.t.Helper()
	w.Start()
	c := &crowd{world: w, told: map[string]int{}}
	for _, sub := range w.users[:people] {
		browser := w.login(sub)
		w.want("at A", w.copy(browser, w.a), good)
		w.want("at B", w.copy(browser, w.b), good)
		c.browsers = append(c.browsers, browser)
	}
	c.leaver = w.login(w.users[people])
	c.left = w.copy(c.leaver, w.b)
	w.want("at B", c.left, good)
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, browser := range c.browsers {
		for _, g := range w.Gateways {
			own := w.copy(browser, g)
			all.Go(func() {
				for {
					answer, err := own.Call()
					c.take(answer, err, may)
					select {
					case <-over:
						return
					case <-time.After(40 * time.Millisecond):
					}
				}
			})
		}
	}
	c.stop = sync.OnceFunc(func() {
		close(over)
		all.Wait()
		w.t.Logf("answers: %v", c.told)
	})
	w.t.Cleanup(c.stop)
	return c
}

// take judges an answer to one of the crowd.
func (c *crowd) take(a *gatewaytest.Answer, err error, may func(*gatewaytest.Answer) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.t.Errorf("no answer: %v", err)
		return
	}
	c.told[a.String()]++
	if good(a) || unavailable(a) || may(a) {
		return
	}
	if c.wrong++; c.wrong <= 5 {
		c.t.Errorf("while the server failed: %s, Set-Cookie %q", a, a.Header["Set-Cookie"])
	}
}

// everybody waits until everybody is answered so at both gateways.
func (c *crowd) everybody(what string, as func(*gatewaytest.Answer) bool) {
	c.t.Helper()
	begun := time.Now()
	for i, browser := range c.browsers {
		for j, g := range c.Gateways {
			c.await(fmt.Sprintf("%s, user %d at gateway %d", what, i, j), c.copy(browser, g), as, patience)
		}
	}
	c.t.Logf("%s: all are %v later", what, time.Since(begun).Round(time.Millisecond))
}

// refusesLogins wants a login to fail with 503 and to leave no session.
func (c *crowd) refusesLogins() {
	c.t.Helper()
	for _, g := range c.Gateways {
		browser := c.NewBrowser().Via(g)
		answer, err := browser.Login(c.users[people])
		if !errors.Is(err, gatewaytest.ErrNotLoggedIn) || answer.Status != http.StatusServiceUnavailable || browser.Session() != "" {
			c.t.Errorf("login: %v, %v, want 503", answer, err)
		}
	}
}

// refusesLogouts wants a logout that cannot be written to be no logout.
func (c *crowd) refusesLogouts() {
	c.t.Helper()
	for _, g := range c.Gateways {
		browser := c.copy(c.browsers[0], g)
		answer, err := browser.Fetch(http.MethodPost, "/bff/logout")
		if err != nil || !unavailable(answer) || browser.Session() == "" {
			c.t.Errorf("logout: %v, %v, want 503 and the cookie kept", answer, err)
		}
	}
}

// works wants logins and logouts to be in effect at both gateways, as soon as both
// have found the server.
func (c *crowd) works() {
	c.t.Helper()
	begun := time.Now()
	for i, g := range c.Gateways {
		browser := c.NewBrowser()
		eventually(c.t, "login", func() error {
			answer, err := browser.Via(g).Login(c.users[people])
			if err != nil && !(errors.Is(err, gatewaytest.ErrNotLoggedIn) && answer.Status == http.StatusServiceUnavailable) {
				c.t.Errorf("login: %v, want 503 at worst", err)
			}
			return err
		})
		other := c.copy(browser, c.Gateways[1-i])
		c.await("a new session at the other gateway", other, good, patience)
		if err := browser.Via(g).Logout(); err != nil {
			c.t.Fatal(err)
		}
		c.await("a new session after its logout", other, ended("logout"), busy)
	}
	c.t.Logf("logins and logouts work %v later", time.Since(begun).Round(time.Millisecond))
}

func nothing(*gatewaytest.Answer) bool { return false }

// Whatever a server says, or does not, while it fails: nobody is logged out by it,
// and everything works again without a restart of a gateway.
func TestNobodyIsLoggedOutByAServerThatFails(t *testing.T) {
	for _, row := range []struct {
		name        string
		spoil, mend func(t *testing.T, redis *gatewaytest.Redis)
		during      func(c *crowd) // else everything is 503
	}{
		{"it is killed and started again", func(_ *testing.T, redis *gatewaytest.Redis) {
			redis.Kill()
		}, func(_ *testing.T, redis *gatewaytest.Redis) {
			redis.Start()
		}, nil},
		{"it has no memory left, and evicts nothing", func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1")
		}, func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "CONFIG SET maxmemory 0")
		}, func(c *crowd) {
			c.refusesLogins()
			if err := c.leaver.Via(c.a).Logout(); err != nil {
				c.t.Errorf("a logout takes room: %v", err)
			}
			c.await("a logout that takes no room, at B", c.left, ended("logout"), busy)
			c.everybody("others", good)
		}},
		{"it wants a password that nobody has", func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "CONFIG SET requirepass secret", "CLIENT KILL TYPE normal")
		}, func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "AUTH secret", `CONFIG SET requirepass ""`)
		}, nil},
		{"it is a replica of nobody, and says READONLY", func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "REPLICAOF 127.0.0.1 1")
		}, func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "REPLICAOF NO ONE")
		}, nil},
		{"it is a replica of nobody, and says MASTERDOWN", func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1")
		}, func(t *testing.T, redis *gatewaytest.Redis) {
			mustTell(t, redis.Address(), "REPLICAOF NO ONE")
		}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t)
			c := gather(newWorld(t, people+1, redis.Store(nil)), nothing)
			row.spoil(t, redis)
			if row.during != nil {
				row.during(c)
			} else {
				c.everybody("it fails", unavailable)
				c.refusesLogins()
				c.refusesLogouts()
			}
			row.mend(t, redis)
			c.everybody("it is mended", good)
			c.works()
			c.stop()
		})
	}
}

// A server that kept nothing knows nobody: everybody has to log in, and can.
func TestAServerThatForgetsIsNoOutage(t *testing.T) {
	t.Parallel()
	redis := gatewaytest.NewRedis(t, "--appendonly", "no")
	c := gather(newWorld(t, people+1, redis.Store(nil)), nobody)
	redis.Kill()
	redis.Start()
	c.everybody("it is back, and empty", nobody)
	c.works()
	c.stop()
}

// A failover by Sentinel: both gateways go on with the replica that was promoted,
// and nobody is logged out whose session it had.
func TestAFailover(t *testing.T) {
	t.Parallel()
	master := gatewaytest.NewRedis(t, "--repl-diskless-sync-delay", "0")
	_, port, err := net.SplitHostPort(master.Address())
	if err != nil {
		t.Fatal(err)
	}
	replica := gatewaytest.NewRedis(t, "--replicaof", "127.0.0.1 "+port)
	eventually(t, "the replica follows", says(replica.Address(), "INFO replication", "master_link_status:up"))
	sentinel := startSentinel(t, port)
	eventually(t, "the Sentinel knows the replica", says(sentinel, "INFO sentinel", "status=ok,address="+master.Address()+",slaves=1"))
	c := gather(newWorld(t, people+1, master.Store(map[string]any{
		"addresses": []string{sentinel}, "sentinel": map[string]any{"master": "shop"},
	})), nothing)
	eventually(t, "the replica has all sessions", func() error {
		has, err := replica.Say("ZCARD", "sessiongate:{0}:used")
		if want := fmt.Sprint(":", people+1); err == nil && has != want {
			err = fmt.Errorf("%s, want %s", has, want)
		}
		return err
	})
	killed := time.Now()
	master.Kill()
	eventually(t, "the replica is promoted", says(replica.Address(), "INFO replication", "role:master"))
	t.Logf("promoted after %v", time.Since(killed).Round(time.Millisecond))
	c.works()
	c.everybody("with the new master", good)
	t.Logf("all is well %v after the master was killed", time.Since(killed).Round(time.Millisecond))
	c.stop()
}

// says tells whether a server answers a command with a text.
func says(address, command, text string) func() error {
	return func() error {
		answer, err := tell(address, command)
		if err == nil && !strings.Contains(answer, text) {
			err = fmt.Errorf("%q is not in %q", text, answer)
		}
		return err
	}
}

// startSentinel starts a Sentinel that decides alone about the master at a loopback
// port.
func startSentinel(t *testing.T, master string) (address string) {
	t.Helper()
	address = gatewaytest.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "sentinel.conf")
	text := "sentinel monitor shop 127.0.0.1 " + master + " 1\nsentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-server", config, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--sentinel")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // its death is tied to the thread that began it
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
	})
	return address
}
