package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

func TestEmbedded(t *testing.T) {
	dir := t.TempDir()
	s := start(t, EmbedConfig{Dir: dir, unsafeNoFsync: true})
	if _, err := Embedded(t.Context(), EmbedConfig{Dir: dir, Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second server on the same directory: %v", err)
	}
	if _, err := Embedded(t.Context(), EmbedConfig{Log: zerolog.Nop()}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("without a directory: %v", err)
	}
	if len(s.etcd.Clients) != 0 || len(s.etcd.Peers) != 0 {
		t.Errorf("%d client and %d peer listeners", len(s.etcd.Clients), len(s.etcd.Peers))
	}
	for _, socket := range listening(t) {
		t.Errorf("this process listens on %s", socket)
	}
}

// listening returns the sockets on which this process accepts connections.
func listening(t *testing.T) (found []string) {
	t.Helper()
	self, err := procfs.Self()
	if err != nil {
		t.Fatal(err)
	}
	targets, err := self.FileDescriptorTargets()
	if err != nil {
		t.Fatal(err)
	}
	mine := map[string]bool{}
	for _, target := range targets {
		mine[target] = true
	}
	fs, err := procfs.NewFS(procfs.DefaultMountPoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() (procfs.NetTCP, error){fs.NetTCP, fs.NetTCP6} {
		lines, err := read()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, line := range lines {
			const listen = 10
			if line.St == listen && mine[fmt.Sprintf("socket:[%d]", line.Inode)] {
				found = append(found, fmt.Sprintf("%v:%d", line.LocalAddr, line.LocalPort))
			}
		}
	}
	return found
}

// TestEmbeddedEndsOldLeases: the leadership of a process that was killed does not keep the next one waiting.
func TestEmbeddedEndsOldLeases(t *testing.T) {
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) {
		client := start(t, EmbedConfig{Dir: dir}).Client
		lease, err := client.Grant(t.Context(), 3600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Put(t.Context(), "/leader/1", "gone", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after", func(t *testing.T) {
		if address, err := Leader(t.Context(), start(t, EmbedConfig{Dir: dir}).Client, "/leader"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("still led by %q, %v", address, err)
		}
	})
}

// TestEmbeddedKeeps closes a server and opens it again.
func TestEmbeddedKeeps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var revision int64
	t.Run("write", func(t *testing.T) {
		b := New(start(t, EmbedConfig{Dir: dir}).Client, "/daybreak", zerolog.Nop())
		revision = create(t, b, "a")
	})
	t.Run("read", func(t *testing.T) {
		b := New(start(t, EmbedConfig{Dir: dir}).Client, "/daybreak", zerolog.Nop())
		if o, err := b.Get(t.Context(), store.RefOf(newZone("a"))); err != nil || o.GetMeta().GetRevision() != revision {
			t.Errorf("got %v, %v, want revision %d", o, err, revision)
		}
	})
}

// external runs an etcd behind a socket, as a cluster of its own would be, and returns its endpoint.
func external(t *testing.T, dir string) (endpoint string, stop func()) {
	t.Helper()
	cfg, err := embedConfig(EmbedConfig{Dir: dir, Log: zerolog.Nop(), unsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	socket := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	cfg.ListenClientUrls = []url.URL{socket}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-server.Server.ReadyNotify()
	return socket.String(), server.Close
}

// shortDir makes a directory whose path leaves room for a socket's name: 108 bytes in all.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestContractOverGRPC is TestContract with a network between.
func TestContractOverGRPC(t *testing.T) {
	t.Parallel()
	endpoint, stop := external(t, shortDir(t))
	defer stop()
	client, err := Dial([]string{endpoint}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	n := 0
	storetest.Run(t, func(t *testing.T) store.Backend {
		n++
		prefix := fmt.Sprintf("/test%d", n)
		return &underTest{Backend: New(client, prefix, zerolog.New(zerolog.NewTestWriter(t))), key: prefix + "/leader/1"}
	})
}

// TestWatchOverRestart restarts etcd under a watch: nothing is missed and nothing comes twice.
func TestWatchOverRestart(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	endpoint, stop := external(t, dir)
	client, err := Dial([]string{endpoint}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := New(client, "/daybreak", zerolog.Nop())
	create(t, b, "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var heard []string
	err = b.Watch(ctx, nil, func(batch store.Batch) error {
		if batch.Reset {
			heard = append(heard, "reset")
		}
		for _, o := range batch.Changed {
			heard = append(heard, o.GetMeta().GetName())
		}
		switch {
		case batch.Reset:
			create(t, b, "b")
			create(t, b, "c")
		case strings.HasSuffix(strings.Join(heard, " "), "c"):
			stop()
			_, stop = external(t, dir)
			create(t, b, "d")
		case strings.HasSuffix(strings.Join(heard, " "), "d"):
			cancel()
		}
		return nil
	})
	stop()
	if got := strings.Join(heard, " "); got != "reset a b c d" || !errors.Is(err, context.Canceled) {
		t.Errorf("heard %s, %v", got, err)
	}
}

// TestHangingEtcd has a peer that takes connections and never answers.
func TestHangingEtcd(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := Dial([]string{"unix://" + socket}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := New(client, "/daybreak", zerolog.Nop())
	b.within = 20 * time.Millisecond
	if _, err := b.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(newZone("a"))}); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("commit: %v", err)
	}
	if _, err := b.Get(t.Context(), store.RefOf(newZone("a"))); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := b.List(t.Context(), v1.Kind_KIND_ZONE); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("list: %v", err)
	}
}
