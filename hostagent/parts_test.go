package hostagent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

func TestGovernorGivesSlotsByWhoIsDue(t *testing.T) {
	g := newGovernor(1, 1)
	var poked []string
	ask := func(name string, due time.Time) bool {
		ok, _ := g.ask(noon, lifeKey{uid: name, generation: 1}, need{due: due}, func() { poked = append(poked, name) })
		return ok
	}
	if !ask("a", noon) || !ask("a", noon) {
		t.Fatal("no slot although one is free, or it was taken twice")
	}
	if ask("late", noon.Add(time.Hour)) || ask("early", noon) {
		t.Fatal("more slots than there are")
	}
	g.release(noon, lifeKey{uid: "a", generation: 1}, true)
	if len(poked) != 2 {
		t.Errorf("poked %v, want both that wait", poked)
	}
	if ask("late", noon.Add(time.Hour)) || !ask("early", noon) {
		t.Error("who was due later went first")
	}
	// A boot that was found takes a slot even beyond the limit.
	g.hold(lifeKey{uid: "found", generation: 1}, 0)
	if n, _ := g.counts(); n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	g.release(noon, lifeKey{uid: "early", generation: 1}, true)
	if ask("late", noon.Add(time.Hour)) {
		t.Error("a slot given beyond the limit")
	}
}

// chunkServer plays a server that keeps no contract.
type chunkServer struct {
	v1.AgentServiceClient
	chunks   []*v1.Chunk
	pieces   [][]byte
	endError error
}

type stream[M any] struct {
	grpc.ServerStreamingClient[M]
	messages []*M
	end      error
}

func (s *stream[M]) Recv() (*M, error) {
	if len(s.messages) == 0 {
		return nil, s.end
	}
	next := s.messages[0]
	s.messages = s.messages[1:]
	return next, nil
}

func (c *chunkServer) GetChunks(context.Context, *v1.GetChunksRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[v1.GetChunksResponse], error) {
	s := &stream[v1.GetChunksResponse]{end: c.endError}
	for _, chunk := range c.chunks {
		s.messages = append(s.messages, &v1.GetChunksResponse{Chunk: chunk})
	}
	return s, nil
}

func (c *chunkServer) GetManifest(context.Context, *v1.GetManifestRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[v1.GetManifestResponse], error) {
	s := &stream[v1.GetManifestResponse]{end: c.endError}
	for _, piece := range c.pieces {
		s.messages = append(s.messages, &v1.GetManifestResponse{Piece: piece})
	}
	return s, nil
}

func TestSourceHoldsTheServerToItsContract(t *testing.T) {
	eof := io.EOF
	a, b, c := bytes.Repeat([]byte{1}, images.DigestBytes), bytes.Repeat([]byte{2}, images.DigestBytes), bytes.Repeat([]byte{9}, images.DigestBytes)
	wants := []Want{{Digest: images.Digest(a)}, {Digest: images.Digest(b), Base: images.Digest(c)}}
	for name, test := range map[string]struct {
		chunks []*v1.Chunk
		end    error
		wrong  string
	}{
		"both, in another order": {chunks: []*v1.Chunk{{Digest: b, Zstd: []byte("b")}, {Digest: a, Zstd: []byte("a")}}},
		"one left out":           {chunks: []*v1.Chunk{{Digest: b}}, end: eof, wrong: "ended 1 chunks short"},
		"one twice":              {chunks: []*v1.Chunk{{Digest: b}, {Digest: b}}, end: eof, wrong: "not asked for"},
		"another one":            {chunks: []*v1.Chunk{{Digest: bytes.Repeat([]byte{3}, images.DigestBytes)}}, end: eof, wrong: "not asked for"},
		"no digest":              {chunks: []*v1.Chunk{{Digest: []byte("x")}}, end: eof, wrong: "bad digest"},
		"no chunk at all":        {chunks: []*v1.Chunk{nil}, end: eof, wrong: "bad digest"},
		"a delta to a":           {chunks: []*v1.Chunk{{Digest: b, Zstd: []byte("b"), Base: c}, {Digest: a, Zstd: []byte("a")}}},
		"a delta to another":     {chunks: []*v1.Chunk{{Digest: b, Base: a}}, end: eof, wrong: "delta that was not asked for"},
		"a delta to half a name": {chunks: []*v1.Chunk{{Digest: b, Base: a[:5]}}, end: eof, wrong: "bad digest"},
		"broken off":             {end: errors.New("broken off"), wrong: "broken off"},
	} {
		t.Run(name, func(t *testing.T) {
			source := &remoteSource{fetched: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})}
			source.use(&chunkServer{chunks: test.chunks, endError: test.end})
			got := map[string]string{}
			err := source.Chunks(t.Context(), wants, func(chunk images.Chunk) error {
				got[string(chunk.Digest[:])] = string(chunk.Sealed)
				return nil
			})
			switch {
			case test.wrong == "" && (err != nil || got[string(a)] != "a" || got[string(b)] != "b"):
				t.Errorf("got %v, %v", got, err)
			case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
				t.Errorf("error %v, want one with %q", err, test.wrong)
			}
		})
	}
}

func TestSourceBounds(t *testing.T) {
	source := &remoteSource{fetched: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})}
	if _, err := source.Manifest(t.Context(), "ab"); !errors.Is(err, errNoSession) {
		t.Errorf("without a session: %v", err)
	}
	const pieces = 8
	piece := make([]byte, images.MaxManifestBytes/pieces)
	largest := slices.Repeat([][]byte{piece}, pieces)
	source.use(&chunkServer{pieces: largest, endError: io.EOF})
	if manifest, err := source.Manifest(t.Context(), "ab"); err != nil || len(manifest) != images.MaxManifestBytes {
		t.Errorf("the largest manifest: %d bytes, %v", len(manifest), err)
	}
	source.use(&chunkServer{pieces: append(largest, []byte{0}), endError: io.EOF})
	if _, err := source.Manifest(t.Context(), "ab"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("an endless manifest: %v", err)
	}
}

func TestProcMeter(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	meter, err := NewProcMeter(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meter.Hardware(); err == nil {
		t.Error("an empty proc is hardware")
	}
	write("sys/kernel/random/boot_id", "some-boot\n")
	write("meminfo", "MemTotal:        8388608 kB\nMemAvailable:    4194304 kB\n")
	write("stat", "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 2 3 4 5 6 7 8 9 10\n")
	if got, err := meter.Hardware(); err != nil || got != (Hardware{BootID: "some-boot", CPUs: 2, MemoryMiB: 8192}) {
		t.Errorf("hardware %+v, %v", got, err)
	}
	if got, err := meter.Load(); err != nil || got != (Load{MemoryAvailableMiB: 4096}) {
		t.Errorf("load without pressure %+v, %v", got, err)
	}
	for name, avg := range map[string]string{"cpu": "12.50", "memory": "0.00", "io": "99.99"} {
		write("pressure/"+name, "some avg10="+avg+" avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	}
	if got, err := meter.Load(); err != nil || got != (Load{MemoryAvailableMiB: 4096, PSIKnown: true, PSICPU: 12.5, PSIIO: 99.99}) {
		t.Errorf("load %+v, %v", got, err)
	}
	if _, err := NewProcMeter("/proc"); err != nil {
		t.Errorf("this machine's: %v", err)
	}
}
