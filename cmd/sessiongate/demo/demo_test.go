package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/internal/devprovider"
)

// observe runs the demo with a gateway that only looks around, and then ends.
func observe(t *testing.T, look func(cfg *config.Config, dir string)) (printed string) {
	t.Helper()
	var out bytes.Buffer
	gateway := func(_ context.Context, text []byte, dir string, ready func(string)) error {
		cfg, err := config.Parse(filepath.Join(dir, "config.yaml"), text)
		if err != nil {
			t.Fatalf("the demo's own configuration is refused: %v", err)
		}
		ready(cfg.Listen)
		look(cfg, dir)
		return nil
	}
	if err := Run(t.Context(), []string{"-listen", "127.0.0.1:0"}, &out, io.Discard, gateway); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTheDemoLeavesNothingBehind(t *testing.T) {
	var dir string
	var addresses []string
	printed := observe(t, func(cfg *config.Config, d string) {
		dir = d
		addresses = []string{strings.TrimPrefix(cfg.Apps[0].OIDC.Issuer, "http://"), cfg.Apps[0].Routes[0].Upstream.Host}
		for _, address := range addresses {
			if conn, err := net.Dial("tcp", address); err != nil {
				t.Errorf("while it runs: %v", err)
			} else {
				conn.Close()
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "spa", "index.html")); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary directory: %v, want it gone", err)
	}
	for _, address := range addresses {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s still listens", address)
		}
	}
	if !strings.Contains(printed, "http://localhost:") || strings.Contains(printed, "\x1b") {
		t.Errorf("printed %q, want a URL and no escape sequence where there is no terminal", printed)
	}
}

func TestADirectoryGoesEvenWhenTheGatewayFails(t *testing.T) {
	var dir string
	broken := errors.New("broken")
	err := Run(t.Context(), []string{"-listen", "127.0.0.1:0"}, io.Discard, io.Discard,
		func(_ context.Context, _ []byte, d string, _ func(string)) error { dir = d; return broken })
	if !errors.Is(err, broken) {
		t.Errorf("error = %v, want the gateway's", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary directory: %v, want it gone", err)
	}
}

func TestWhereItListens(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	t.Run("a port that was asked for and is taken is an error", func(t *testing.T) {
		for _, host := range []string{"127.0.0.1:", "localhost:"} {
			if address, _, err := choose(host + port); err == nil {
				t.Errorf("choose = %s, want an error", address)
			}
		}
	})
	t.Run("the default gives way", func(t *testing.T) {
		if l, err := net.Listen("tcp", defaultListen); err == nil {
			defer l.Close()
		}
		address, moved, err := choose(defaultListen)
		if err != nil || !moved || address == defaultListen {
			t.Errorf("choose = %s, %v, %v; want another port", address, moved, err)
		}
	})
	t.Run("only loopback will do", func(t *testing.T) {
		for _, listen := range []string{":8080", "0.0.0.0:8080", "192.168.1.1:80", "example.com:80", "8080", "[::]:80"} {
			if _, _, err := choose(listen); !errors.Is(err, ErrUsage) {
				t.Errorf("choose %s: error = %v, want ErrUsage", listen, err)
			}
		}
	})
}

// The app's policy forbids inline scripts and styles: the page must have none.
func TestThePageNeedsNothingThatItsPolicyForbids(t *testing.T) {
	page, err := spa.ReadFile("spa/index.html")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile(`<style|\sstyle=|\son[a-z]+=|<script(?:[^>]*)>[^<]|javascript:|https?://`)
	if found := inline.Find(page); found != nil {
		t.Errorf("index.html has %q", found)
	}
	for _, file := range regexp.MustCompile(`(?:src|href)="([^"#/][^"]*)"`).FindAllSubmatch(page, -1) {
		if _, err := fs.Stat(spa, "spa/"+string(file[1])); err != nil {
			t.Errorf("index.html names %s: %v", file[1], err)
		}
	}
}

// A name that a script misspells shows only when somebody clicks.
func TestScriptsFindTheirElements(t *testing.T) {
	page, err := spa.ReadFile("spa/index.html")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := fs.Glob(spa, "spa/*.js")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts = %v, %v", scripts, err)
	}
	for _, script := range scripts {
		text, err := spa.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range regexp.MustCompile(`\$\("([^"]+)"\)`).FindAllSubmatch(text, -1) {
			if n := strings.Count(string(page), ` id="`+string(id[1])+`"`); n != 1 {
				t.Errorf("%s names %q, which index.html has %d times", script, id[1], n)
			}
		}
		for _, module := range regexp.MustCompile(`from "\./([^"]+)"`).FindAllSubmatch(text, -1) {
			if _, err := fs.Stat(spa, "spa/"+string(module[1])); err != nil {
				t.Errorf("%s imports %s: %v", script, module[1], err)
			}
		}
	}
}

func TestTheAPIAnswersWithTheRequestButNeverWithAToken(t *testing.T) {
	w, err := newWorld("127.0.0.1:1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	cfg, err := config.Parse(filepath.Join(w.dir, "config.yaml"), w.configuration())
	if err != nil {
		t.Fatal(err)
	}
	// An ID token that nothing but its typ tells from an access token (RFC 9068, 4).
	w.provider.Fail(devprovider.Fault{Claims: devprovider.With("aud", audience)}, devprovider.Code)
	access, id := login(t, cfg)
	base := cfg.Apps[0].Routes[0].Upstream.String()
	status, body := get(t, base+"/api/echo?a=b", access)
	var echo struct {
		Method, Path string
		Headers      http.Header
		Token        struct {
			Header struct{ Typ string }
			Claims struct {
				Sub        string
				Generation *int
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &echo); err != nil || status != 200 {
		t.Fatalf("echo: %d %s", status, body)
	}
	if echo.Path != "/api/echo?a=b" || echo.Headers.Get("X-Seen") != "yes" || echo.Token.Claims.Sub != users[0].Sub ||
		echo.Token.Header.Typ != "at+jwt" || echo.Token.Claims.Generation == nil {
		t.Errorf("echo = %s, want the request and the decoded token", body)
	}
	for i, part := range strings.Split(access, ".") {
		if strings.Contains(body, part) {
			t.Errorf("echo has part %d of the token", i)
		}
	}
	if status, body := get(t, base+"/api/feed", access); status != 426 {
		t.Errorf("the feed without a WebSocket: %d %s, want 426", status, body)
	}
	for name, token := range map[string]string{"none": "", "an ID token": id, "a changed token": access[:len(access)-4] + "AAAA"} {
		for _, path := range []string{"/api/orders", "/api/feed"} {
			if status, _ := get(t, base+path, token); status != 401 {
				t.Errorf("%s with %s: status = %d, want 401", path, name, status)
			}
		}
	}
}
