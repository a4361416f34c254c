package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	example       = "../../../config.example.yaml"
	documentation = "../../../docs/configuration.md"
)

// schema lists every key of the configuration, such as apps[].oidc.issuer.
func schema(t reflect.Type, parent string) map[string]reflect.StructField {
	keys := make(map[string]reflect.StructField)
	for _, f := range fields(t) {
		key, inner := join(parent, f.Tag.Get("yaml")), f.Type
		keys[key] = f
		if inner.Kind() == reflect.Slice {
			key, inner = key+"[]", inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner != prefixType && inner != urlType.Elem() {
			for name, field := range schema(inner, key) {
				keys[name] = field
			}
		}
	}
	return keys
}

var index = regexp.MustCompile(`\[\d+\]`)

func setExampleEnvironment(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`\$\{([A-Z_]+)\}`).FindAllStringSubmatch(string(text), -1) {
		t.Setenv(name[1], "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=")
	}
}

// The example is what operators copy: it has every key, and it loads.
func TestTheExampleHoldsEveryKeyAndLoads(t *testing.T) {
	setExampleEnvironment(t)
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(example, withRedis(t))
	if err != nil {
		t.Fatal(err)
	}
	held := make(map[string]bool)
	for _, c := range []*Config{c, r} {
		for key := range c.src.at {
			held[index.ReplaceAllString(key, "[]")] = true
		}
	}
	for key := range schema(reflect.TypeFor[Config](), "") {
		if !held[key] {
			t.Errorf("config.example.yaml lacks %s", key)
		}
	}
}

// withRedis is the example with the store that it has in comments, in the place of
// the file.
func withRedis(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	bbolt := regexp.MustCompile(`(?m)^    bbolt:\n.*\n(    # Instead, .*\n)?`).ReplaceAll(text, nil)
	lines := regexp.MustCompile(`(?m)^    # (redis:|  [a-z_ ]+:)`)
	if len(bbolt) == len(text) || !lines.Match(bbolt) {
		t.Fatal("config.example.yaml has no store, or no redis in comments")
	}
	return lines.ReplaceAll(bbolt, []byte("    $1"))
}

func TestTheExamplesRedisSaysWhatTheDefaultsAre(t *testing.T) {
	setExampleEnvironment(t)
	c, err := Parse(example, withRedis(t))
	if err != nil {
		t.Fatal(err)
	}
	least, err := Parse(example, []byte(strings.Replace(leastConfig, "session: {", `session: {store: {redis: {addresses: ["127.0.0.1:6379"]}}, `, 1)))
	if err != nil {
		t.Fatal(err)
	}
	got, want := *c.Session.Store.Redis, *least.Session.Store.Redis
	if got.TLS == nil || got.TLS.CA != "" || want.TLS != nil {
		t.Errorf("tls = %v in the example, %v where it is absent", got.TLS, want.TLS)
	}
	got.TLS = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example's values:\n%+v\nthe defaults:\n%+v", got, want)
	}
}

// A key that the example gives its default must really have it, or operators
// read something that is not so.
func TestTheExampleSaysWhatTheDefaultsAre(t *testing.T) {
	setExampleEnvironment(t)
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	least, err := Parse(example, []byte(leastConfig))
	if err != nil {
		t.Fatal(err)
	}
	got, want := *c, *least
	for _, v := range []*Config{&got, &want} {
		v.Apps, v.Session.Keys, v.Files, v.src = v.Apps[:1], nil, nil, nil
		a := &v.Apps[0]
		a.Origin, a.Routes, a.OIDC.Issuer, a.OIDC.ClientID, a.OIDC.ClientSecret = "", a.Routes[:1], "", "", ""
		r := &a.Routes[0]
		r.Path, r.Upstream, r.StripPrefix, r.Static = "", nil, "", nil
	}
	if g, w := fmt.Sprintf("%+v", withoutNil(got)), fmt.Sprintf("%+v", withoutNil(want)); g != w {
		t.Errorf("the example's values:\n%s\nthe defaults:\n%s", g, w)
	}
}

// withoutNil makes empty and absent lists print alike.
func withoutNil(c Config) string {
	b, _ := json.Marshal(c)
	return strings.NewReplacer("null", "[]", "{}", "[]").Replace(string(b))
}

const leastConfig = `
session: {keys: [q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=]}
apps:
  - origin: https://shop.example.com
    oidc: {issuer: https://login.example.com, client_id: shop, client_secret: s}
    routes: [{path: /api/, upstream: "http://127.0.0.1:9000"}]
`

func TestTheDefaultsAreThoseOfTheDesign(t *testing.T) {
	c, err := Parse("/etc/sessiongate/config.yaml", []byte(leastConfig))
	if err != nil {
		t.Fatal(err)
	}
	app := c.Apps[0]
	for _, row := range []struct {
		key       string
		got, want any
	}{
		{"listen", c.Listen, ":8080"},
		{"shutdown_delay", c.ShutdownDelay, 5 * time.Second},
		{"shutdown_timeout", c.ShutdownTimeout, 30 * time.Second},
		{"limits", c.Limits, Limits{32768, 0, 60, time.Minute, time.Minute, 100, 100, 50000}},
		{"admin", fmt.Sprintf("%q %q %q", c.Admin.Listen, c.Admin.Token.Reveal(), c.Admin.Socket), `"127.0.0.1:9180" "" ""`},
		{"log", c.Log, Log{"info", "json", false}},
		{"session.idle_timeout", c.Session.IdleTimeout, 30 * time.Minute},
		{"session.lifetime", c.Session.Lifetime, 12 * time.Hour},
		{"session.max_per_user", c.Session.MaxPerUser, 0},
		{"session.cookie", c.Session.Cookie, Cookie{"", "strict", false}},
		{"session.store.bbolt.path", c.Session.Store.Bbolt.Path, Path("/etc/sessiongate/sessions.db")},
		{"session.store.redis", c.Session.Store.Redis == nil, true},
		{"base_path", app.BasePath, "/bff"},
		{"scopes", strings.Join(app.OIDC.Scopes, " "), "openid profile email offline_access"},
		{"login_params", strings.Join(app.OIDC.LoginParams, " "), "prompt login_hint ui_locales acr_values max_age"},
		{"refresh_ahead", app.OIDC.RefreshAhead, time.Minute},
		{"timeout", app.OIDC.Timeout, 10 * time.Second},
		{"clock_skew", app.OIDC.ClockSkew, time.Minute},
		{"logout", fmt.Sprint(app.OIDC.Logout), fmt.Sprint(Logout{true, true, true, "/", false, nil})},
		{"user_claims", strings.Join(app.OIDC.UserClaims, " "), "sub name email preferred_username picture roles groups"},
		{"security_headers", app.SecurityHeaders, SecurityHeaders{"", "'none'", 31536000}},
		{"route", strings.Join([]string{app.Routes[0].Kind, app.Routes[0].Auth, app.Routes[0].Token, app.Routes[0].CSRF}, " "), "api required access header"},
		{"routes.stream_keeps_alive", app.Routes[0].StreamKeepsAlive, false},
		{"routes.end_with_session", app.Routes[0].EndWithSession, false},
		{"routes.timeout", app.Routes[0].Timeout, 30 * time.Second},
	} {
		if row.got != row.want {
			t.Errorf("%s = %v, want %v", row.key, row.got, row.want)
		}
	}
}

func TestTheDocumentationDescribesEveryKeyAndNoOther(t *testing.T) {
	text, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	keys := schema(reflect.TypeFor[Config](), "")
	described := make(map[string]string) // key -> the rest of its row
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)` \\|(.*)$").FindAllStringSubmatch(string(text), -1) {
		described[row[1]] = row[2]
	}
	for key, field := range keys {
		row, ok := described[key]
		leaf := !slices.ContainsFunc(slices.Collect(mapKeys(keys)), func(k string) bool {
			return strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[].")
		})
		switch value := field.Tag.Get("default"); {
		case !ok && leaf:
			t.Errorf("docs/configuration.md has no row for %s", key)
		case ok && value != "" && !strings.Contains(row, strings.ReplaceAll(value, " ", ", ")):
			t.Errorf("docs/configuration.md does not say that %s defaults to %s", key, value)
		}
	}
	for key := range described {
		if _, ok := keys[key]; !ok {
			t.Errorf("docs/configuration.md describes %s, which does not exist", key)
		}
	}
}

func mapKeys(m map[string]reflect.StructField) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// The configurations in the documentation are copied too.
func TestTheDocumentationsConfigurationsLoad(t *testing.T) {
	setExampleEnvironment(t)
	dir := t.TempDir()
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	for _, document := range []string{documentation, "../../../README.md"} {
		text, err := os.ReadFile(document)
		if os.IsNotExist(err) {
			continue
		}
		for i, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(block[1], "apps:") {
				continue
			}
			yaml := regexp.MustCompile(`\$\{file:[^}]*\}`).ReplaceAllString(block[1], "q9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q=")
			if _, err := Parse(filepath.Join(dir, "config.yaml"), []byte(yaml)); err != nil {
				t.Errorf("%s, configuration %d:\n%v", filepath.Base(document), i+1, err)
			}
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c, err := Parse("c.yaml", []byte(strings.Replace(leastConfig, "client_secret: s", "client_secret: canary", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "config", c, "secret", c.Session.Keys[0])
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "config", c, "secret", c.Session.Keys[0])
	b, err := json.Marshal(c)
	printed := fmt.Sprintf("%v %+v %#v %s %q", c.Apps, c.Apps, c.Apps, c.Session.Keys, c.Session.Keys) + string(b) + logged.String()
	if err != nil || strings.Contains(printed, "canary") || strings.Contains(printed, "q9Zr0") {
		t.Errorf("a secret was printed: %v\n%s", err, printed)
	}
}
