package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sessiongate/session"
)

func TestExpansionHappensAfterParsing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "from a file: [x]\r\n")
	t.Setenv("CONFIG_TEST_VALUE", "a: [b}, \"c\" # ${HOME}")
	t.Setenv("CONFIG_TEST_NUMBER", "7")
	t.Setenv("CONFIG_TEST_BOOL", "true")
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte(`
session: {keys: [q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=]}
limits: {connections: "${CONFIG_TEST_NUMBER}"}
log: {access: "${CONFIG_TEST_BOOL}"}
apps:
  - origin: https://shop.example.com
    oidc:
      issuer: https://login.example.com
      client_id: ${CONFIG_TEST_VALUE}
      client_secret: "<${file:secret}> $${NAME} $5"
      auth_params: {audience: "x${CONFIG_TEST_NUMBER}y${CONFIG_TEST_NUMBER}z"}
    routes: []
`))
	if err != nil {
		t.Fatal(err)
	}
	o := c.Apps[0].OIDC
	for _, row := range []struct{ what, got, want string }{
		{"a value that looks like YAML stays one value", o.ClientID, "a: [b}, \"c\" # ${HOME}"},
		{"files, escapes and lone dollars", o.ClientSecret.Reveal(), "<from a file: [x]> ${NAME} $5"},
		{"two references in one value", o.AuthParams["audience"], "x7y7z"},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %q, want %q", row.what, row.got, row.want)
		}
	}
	if c.Limits.Connections != 7 || !c.Log.Access {
		t.Errorf("numbers and truth values from outside: %d, %v", c.Limits.Connections, c.Log.Access)
	}
	if want := filepath.Join(dir, "secret"); !slices.Contains(c.Files, want) {
		t.Errorf("Files = %v, want %s in it", c.Files, want)
	}
}

func TestPathsAreRelativeToTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(leastConfig, `"http://127.0.0.1:9000"}]`, `"http://127.0.0.1:9000"}, {path: /, static: {dir: dist}, auth: none}]`, 1)
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(c.Apps[0].Routes[1].Static.Dir), filepath.Join(dir, "dist"); got != want {
		t.Errorf("static.dir = %s, want %s", got, want)
	}
	if r := c.Apps[0].Routes[1]; r.Token != "" || r.CSRF != "" {
		t.Errorf("auth: none came with token %q and csrf %q", r.Token, r.CSRF)
	}
}

func TestAKeyThatKeygenCouldHaveMadeIsAccepted(t *testing.T) {
	for name, key := range map[string]string{
		"base64":             "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=",
		"base64url":          "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x_-",
		"hex, which is also": "3f9a1c5be07d24886cb1f0e29d37a45c8812de6b70f94ca3155e8b9d02c7f16a",
	} {
		if _, err := session.DecodeKey(key); err != nil {
			t.Errorf("%s: the key %v", name, err)
		}
	}
}

// Problem is for what only shows when a configuration is put to use.
func TestALaterProblemPointsAtItsLine(t *testing.T) {
	c, err := Parse("c.yaml", []byte(leastConfig))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Problem("apps[0].routes[0].upstream", "does not answer", "start it").Error()
	want := "c.yaml:6:38: apps[0].routes[0].upstream: does not answer; start it\n" +
		`     6 |     routes: [{path: /api/, upstream: "http://127.0.0.1:9000"}]`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Without the app's build the gateway would answer 404 to everything; that is
// told before it starts, but it is no fault of the configuration.
func TestStaticFilesThatAreNotThereAreTold(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(leastConfig, `"http://127.0.0.1:9000"}]`, `"http://127.0.0.1:9000"}, {path: /, static: {dir: dist, fallback: index.html}, auth: none}]`, 1)
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	absent := func(want string) {
		t.Helper()
		if p := c.Absent(); len(p) != 1 || p[0].Key != want {
			t.Errorf("Absent() = %v, want one problem with %s", p, want)
		}
	}
	absent("apps[0].routes[1].static.dir")
	if err := os.Mkdir(filepath.Join(dir, "dist"), 0o700); err != nil {
		t.Fatal(err)
	}
	absent("apps[0].routes[1].static.fallback")
	write(t, filepath.Join(dir, "dist/index.html"), "")
	if p := c.Absent(); len(p) != 0 {
		t.Errorf("Absent() = %v, want none", p)
	}
}

func TestWarnings(t *testing.T) {
	c, err := loadTestdata(t, "unwise.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here, _ := os.Getwd()
	got := strings.ReplaceAll(c.Warnings().Error(), here, "DIR") + "\n"
	if *update {
		write(t, "unwise.golden", got)
	}
	want, err := os.ReadFile("unwise.golden")
	if err != nil || got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(got, "canary") {
		t.Error("a warning holds a secret")
	}
}

func TestALifetimeBelowTheIdleTimeoutIsUnwiseOnly(t *testing.T) {
	c, err := Parse("c.yaml", []byte(`
session: {keys: [q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=], lifetime: 5s}
apps:
  - origin: https://shop.example.com
    oidc: {issuer: https://login.example.com, client_id: shop, client_secret: s}
    routes: []
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Warnings().Error(); !strings.Contains(got, "session.idle_timeout: is longer than session.lifetime") {
		t.Errorf("warnings = %s", got)
	}
}

// Whoever has the token ends everybody's sessions, so nobody may guess it.
func TestAdminTokensAreStrongOrRefused(t *testing.T) {
	for _, row := range []struct{ name, token, want string }{
		{"what keygen prints", "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x1Q=", ""},
		{"32 characters of hex", "3f9a1c5be07d24886cb1f0e29d37a45c", ""},
		{"31 characters", "3f9a1c5be07d24886cb1f0e29d37a45", "has 31 characters"},
		{"a few characters again and again", strings.Repeat("secret", 8), "is a weak token"},
		{"a blank", "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6b Fo5iTkW3x1Q", "has characters that a bearer token cannot have"},
		{"a line break", `q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6b\nX-Y: Fo5iTkW3x1Q`, "has characters that a bearer token cannot have"},
		{"a letter that headers cannot carry", "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGä6bFo5iTkW3x1Q", "has characters that a bearer token cannot have"},
		{"the key of the sessions", "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=", "is one of session.keys"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Parse("c.yaml", []byte(leastConfig+`admin: {token: "`+row.token+`"}`))
			switch {
			case row.want == "" && (err != nil || c.Admin.Token.Reveal() != row.token):
				t.Errorf("refused: %v", err)
			case row.want != "" && !strings.Contains(fmt.Sprint(err), "admin.token: "+row.want):
				t.Errorf("error = %v, want %q in it", err, row.want)
			}
		})
	}
}

// Two apps may have the provider call one machine by its ports.
func TestLogoutHostsMayDifferInThePort(t *testing.T) {
	const oidc = "oidc: {issuer: https://login.example.com, client_id: shop, client_secret: s, logout: {hosts: ["
	text := strings.Replace(leastConfig, "oidc: {issuer: https://login.example.com, client_id: shop, client_secret: s}", oidc+`"gateway.internal:8080", "[::1]:8080"]}}`, 1) +
		"  - origin: https://desk.example.com\n    " + oidc + `"gateway.internal:8081", "[::1]:8081", "shop.example.com:8443"]}}` + "\n"
	c, err := Parse("c.yaml", []byte(text))
	if err != nil || len(c.Apps[1].OIDC.Logout.Hosts) != 3 {
		t.Errorf("refused: %v", err)
	}
}

func TestRedisIsSpokenToInTheClearOnThisMachineOnly(t *testing.T) {
	const near = `"127.0.0.1:6379"`
	for _, row := range []struct{ name, redis, want string }{
		{"loopback", `addresses: ["[::1]:6379"]`, ""},
		{"localhost", `addresses: ["localhost:6379"]`, ""},
		{"a name that a resolver may give anybody", `addresses: ["redis.localhost:6379"]`, "addresses[0]: would send passwords"},
		{"another machine", `addresses: ["10.1.2.3:6379"]`, "addresses[0]: would send passwords"},
		{"another machine, and it is said to be well", `addresses: ["10.1.2.3:6379"], insecure_plaintext: true`, ""},
		{"another machine, with the system's CAs", `addresses: ["redis.example.com:6379"], tls: {}`, ""},
		{"another machine behind one of this", `addresses: [` + near + `, "redis.example.com:6379"], cluster: true`, "addresses[1]: would send passwords"},
		{"several Sentinels", `addresses: [` + near + `, "127.0.0.1:6380"], sentinel: {master: shop, username: s, password: s}, db: 7`, ""},
		{"a port that is none", `addresses: ["127.0.0.1:70000"]`, "addresses[0]: is not host:port"},
		{"no port", `addresses: ["127.0.0.1"]`, "addresses[0]: is not host:port"},
		{"no host", `addresses: [":6379"]`, "addresses[0]: is not host:port"},
		{"port 0", `addresses: ["127.0.0.1:0"]`, "addresses[0]: is not host:port"},
		{"a password before the host", `addresses: ["canary@redis.example.com:6379"], tls: {}`, "addresses[0]: is not host:port"},
		{"a path behind the host", `addresses: ["redis.example.com/0:6379"], tls: {}`, "addresses[0]: is not host:port"},
		{"the default user", `addresses: [` + near + `], password: s`, ""},
		{"bbolt besides", `addresses: [` + near + `]}, bbolt: {path: x.db`, "bbolt: stands beside redis"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Parse("c.yaml", []byte(strings.Replace(leastConfig, "session: {", "session: {store: {redis: {"+row.redis+"}}, ", 1)))
			switch {
			case row.want == "" && (err != nil || c.Session.Store.Redis == nil || c.Session.Store.Bbolt.Path != ""):
				t.Errorf("refused: %v", err)
			case row.want != "" && (!strings.Contains(fmt.Sprint(err), row.want) || strings.Contains(fmt.Sprint(err), "canary")):
				t.Errorf("error = %v, want %q in it, and no password", err, row.want)
			}
		})
	}
}

func TestALongSilenceOfTheStoreIsUnwiseToBelieve(t *testing.T) {
	c, err := Parse("c.yaml", []byte(strings.Replace(leastConfig, "session: {", `session: {store: {redis: {addresses: ["127.0.0.1:6379"], liveness: 11s}}, `, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Warnings().Error(); !strings.Contains(got, "session.store.redis.liveness: is very long") {
		t.Errorf("warnings = %s", got)
	}
}

func TestTheAdminSocketIsAFileOfItsOwn(t *testing.T) {
	_, err := Parse("c.yaml", []byte(strings.Replace(leastConfig, "session: {", "session: {store: {bbolt: {path: x.db}}, ", 1)+`admin: {socket: ./x.db}`))
	if !strings.Contains(fmt.Sprint(err), "admin.socket: is the path of the store") {
		t.Errorf("error = %v", err)
	}
}

func TestAFileThatIsNoFileIsRefused(t *testing.T) {
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent.yaml"), os.DevNull} {
		if _, err := Load(path); err == nil {
			t.Errorf("%s was accepted", path)
		}
	}
}

// FuzzParse: whatever the text, no panic, every problem has a place in it, and no
// problem or warning shows a secret, whichever characters were mistyped.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for i, file := range append(files, example) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), uint16(i*16), uint8(i%3), "&")
	}
	for i, typo := range []string{"", "\n", ": ", "{", "|", "- ", "\"", "#", "\t", "${CONFIG_FUZZ}"} {
		f.Add("session: {keys: [\"${CONFIG_FUZZ}\"], idle_timeout: \"${CONFIG_FUZZ}\", ${CONFIG_FUZZ}: ${CONFIG_FUZZ}", uint16(i*97), uint8(1), typo)
		f.Add("session:\n  keys: [\"${CONFIG_FUZZ}\"]\n  idle_timeout: ${CONFIG_FUZZ}\nlog: {level: \"x${CONFIG_FUZZ}\"}", uint16(i*89), uint8(2), typo)
	}
	const outside = "dVq7hZk2" // from the environment, where any value may be a secret
	if err := os.Setenv("CONFIG_FUZZ", outside); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.Unsetenv("CONFIG_FUZZ") })
	f.Fuzz(func(t *testing.T, text string, at uint16, cut uint8, typo string) {
		if said := checkProblems(t, text); strings.Contains(said, outside) && !strings.Contains(text, outside) {
			t.Errorf("a value from outside is shown:\n%s", said)
		}
		if len(typo) > 2 {
			return // more is no typo, and may well name a secret something else
		}
		for _, config := range []string{blockOfSecrets, flowOfSecrets} {
			i := int(at) % len(config)
			wrong := config[:i] + typo + config[min(len(config), i+int(cut%3)):]
			if said := checkProblems(t, wrong); strings.Contains(said, "canary") {
				t.Errorf("a secret of this is shown:\n%s\n%s", wrong, said)
			}
		}
	})
}

// checkProblems returns all that is said of a configuration.
func checkProblems(t *testing.T, text string) string {
	t.Helper()
	c, err := Parse("c.yaml", []byte(text))
	var problems Problems
	switch {
	case err == nil:
		problems = c.Warnings()
	case !errors.As(err, &problems) || len(problems) == 0:
		t.Fatalf("%T: %v", err, err)
	}
	lines := 1 + strings.Count(text, "\n") + strings.Count(text, "\r") - strings.Count(text, "\r\n")
	for _, p := range problems {
		if p.Line < 1 || p.Line > lines || p.Column < 1 || p.What == "" {
			t.Errorf("%d lines, but: %v", lines, p)
		}
	}
	return problems.Error()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
