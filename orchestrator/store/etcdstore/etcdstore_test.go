package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// shared is the etcd of all tests that need none of their own. They keep apart by prefix.
type shared struct {
	once   sync.Once
	server *Server
	err    error
}

var common shared

func TestMain(m *testing.M) {
	code := m.Run()
	if common.server != nil {
		dir := common.server.etcd.Config().Dir
		if err := errors.Join(common.server.close(), os.RemoveAll(filepath.Dir(dir))); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// serve returns a client of the shared etcd and a prefix for this test.
func serve(t *testing.T) (client *clientv3.Client, prefix string) {
	t.Helper()
	common.once.Do(func() {
		var dir string
		if dir, common.err = os.MkdirTemp("", "etcd"); common.err == nil {
			common.server, common.err = Embedded(context.Background(), EmbedConfig{Dir: dir, Log: zerolog.Nop(), unsafeNoFsync: true})
		}
	})
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.server.Client, "/" + t.Name() + "-" + uuid.NewString()
}

func start(t *testing.T, cfg EmbedConfig) *Server {
	t.Helper()
	cfg.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	s, err := Embedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("etcd ended with %v", err)
		}
	})
	return s
}

// underTest adds the suite's hooks.
type underTest struct {
	*Backend
	key string
}

func (u *underTest) Compact(ctx context.Context) error {
	answer, err := u.client.Get(ctx, "x")
	if err == nil {
		_, err = u.client.Compact(ctx, answer.Header.Revision)
	}
	return err
}

// Elect deletes the old leader's key and makes a new one.
func (u *underTest) Elect(ctx context.Context) (store.Guard, error) {
	if _, err := u.client.Delete(ctx, u.key); err != nil {
		return store.Guard{}, err
	}
	answer, err := u.client.Put(ctx, u.key, "")
	if err != nil {
		return store.Guard{}, err
	}
	return store.Guard{Key: u.key, Revision: answer.Header.Revision}, nil
}

func TestContract(t *testing.T) {
	t.Parallel()
	client := start(t, EmbedConfig{Dir: t.TempDir(), unsafeNoFsync: true}).Client // it compacts
	n := 0
	storetest.Run(t, func(t *testing.T) store.Backend {
		n++
		prefix := fmt.Sprintf("/test%d", n)
		return &underTest{Backend: New(client, prefix, zerolog.New(zerolog.NewTestWriter(t))), key: prefix + "/leader/1"}
	})
}

func newZone(name string) *v1.Zone {
	return &v1.Zone{Meta: &v1.Meta{Name: name}, Spec: &v1.ZoneSpec{DisplayName: name}}
}

func create(t *testing.T, b *Backend, names ...string) int64 {
	t.Helper()
	var ops []store.Op
	for _, name := range names {
		ops = append(ops, store.Create(newZone(name)))
	}
	revision, err := b.Commit(t.Context(), store.Guard{}, ops)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// TestBrokenValues plants keys that no Daybreak wrote: they must hide nothing else.
func TestBrokenValues(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	b := New(client, prefix+"/", zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.Disabled))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b)
	create(t, b, "a", "c")
	for key, value := range map[string]string{
		prefix + "/zone/b":         "\xff\xff garbage",
		prefix + "/zone/empty":     "",
		prefix + "/zone/":          "no name",
		prefix + "/later_kind/x":   "of a later version",
		prefix + "/leader/abc":     "10.0.0.1:8443",
		prefix + "/zone":           "no slash",
		prefix + "other/zone/x":    "another prefix",
		prefix + "/unspecified/x":  "no kind",
		prefix + "/zone/large":     strings.Repeat("\xff", 1<<20),
		prefix + "/pool/\xff\x00x": "\x00",
	} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	zones, _, err := b.List(t.Context(), v1.Kind_KIND_ZONE)
	if err != nil || len(zones) != 2 {
		t.Errorf("listed %v, %v", zones, err)
	}
	if n := testutil.ToFloat64(b.metrics.broken); n != 4 {
		t.Errorf("counted %v broken values, want 4", n)
	}
	_, err = b.Get(t.Context(), store.Ref{Kind: v1.Kind_KIND_ZONE, Name: "b"})
	if !errors.Is(err, store.ErrBroken) || !strings.Contains(err.Error(), prefix+"/zone/b") {
		t.Errorf("get of a broken value: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var heard []string
	err = b.Watch(ctx, nil, func(batch store.Batch) error {
		for _, o := range batch.Changed {
			heard = append(heard, o.GetMeta().GetName())
		}
		if batch.Reset {
			if _, err := client.Put(ctx, prefix+"/zone/d", "\xff"); err != nil {
				return err
			}
			create(t, b, "e")
		}
		if len(heard) == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(heard) != "[a c e]" {
		t.Errorf("heard %v, %v", heard, err)
	}
	if families, err := registry.Gather(); err != nil || len(families) == 0 {
		t.Errorf("metrics: %v, %v", families, err)
	}
}

// TestPrefixes keeps two stores apart in one etcd.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	a, b := New(client, prefix, zerolog.Nop()), New(client, prefix+"/", zerolog.Nop())
	other := New(client, prefix[:len(prefix)-1], zerolog.Nop())
	create(t, a, "x")
	if _, err := b.Get(t.Context(), store.RefOf(newZone("x"))); err != nil {
		t.Errorf("with a slash it is the same store: %v", err)
	}
	if zones, _, err := other.List(t.Context(), v1.Kind_KIND_ZONE); err != nil || len(zones) != 0 {
		t.Errorf("another store has %v, %v", zones, err)
	}
}

// TestMirrorBesideOthers has others move etcd's revision: a transaction that writes nothing then has a revision that
// no change of an object ever brings, and a mirror must get there all the same.
func TestMirrorBesideOthers(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	b := New(client, prefix, zerolog.Nop())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m := store.NewMirror(b)
	var group errgroup.Group
	group.Go(func() error { return m.Run(ctx) })
	if _, err := m.Wait(ctx, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := client.Put(ctx, "/other/x", "y"); err != nil {
			t.Fatal(err)
		}
		nothing := store.Op{Verb: store.VerbCheck, Ref: store.RefOf(newZone("none"))}
		revision, err := b.Commit(ctx, store.Guard{}, []store.Op{nothing})
		if err != nil {
			t.Fatal(err)
		}
		if view, err := m.Wait(ctx, revision); err != nil || view.Revision < revision {
			t.Errorf("%d: %v", i, err)
		}
	}
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("mirror ended with %v", err)
	}
}

// TestUnknownOutcome stops the server under a client's feet.
func TestUnknownOutcome(t *testing.T) {
	s, err := Embedded(t.Context(), EmbedConfig{Dir: t.TempDir(), Log: zerolog.Nop(), unsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	b := New(s.Client, "/daybreak", zerolog.Nop())
	create(t, b, "a")
	s.etcd.Server.HardStop()
	if _, err := b.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(newZone("b"))}); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("commit on a stopped server: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Commit(ended, store.Guard{}, []store.Op{store.Create(newZone("b"))}); errors.Is(err, store.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("commit that was never sent: %v", err)
	}
	if err := s.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a server that stopped by itself ended with %v", err)
	}
}

func TestDial(t *testing.T) {
	for endpoint, allowed := range map[string]bool{
		"https://etcd1.example:2379": true, "https://10.0.0.1:2379": true, "http://127.0.0.1:2379": true,
		"http://[::1]:2379": true, "http://localhost:2379": true, "localhost:2379": true, "unix:///run/etcd.sock": true,
		"unix:/run/etcd.sock":  true,
		"http://10.0.0.1:2379": false, "10.0.0.1:2379": false, "etcd1.example:2379": false, "http://localhost.evil.example:2379": false,
		"http://127.0.0.1:2379@evil.example:1": false, "http://0.0.0.0:2379": false, "": false, "https://": false, "unix://": false,
		"https://etcd1": false, "ftp://127.0.0.1:1": false, "https://a:1/path": false,
	} {
		client, err := Dial([]string{endpoint}, nil)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", endpoint, err)
		}
		if err != nil && !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%q: error without its sentinel: %v", endpoint, err)
		}
		if client != nil {
			_ = client.Close()
		}
	}
	if _, err := Dial(nil, nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("of no endpoints: %v", err)
	}
	client, err := Dial([]string{"unix:///nobody/listens"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b := New(client, "/daybreak", zerolog.Nop())
	if _, err := b.Commit(ctx, store.Guard{}, []store.Op{store.Create(newZone("b"))}); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("commit on nothing: %v", err)
	}
	if err := b.Watch(ctx, nil, func(store.Batch) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("watch on nothing: %v", err)
	}
}
