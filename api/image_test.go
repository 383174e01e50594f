package api

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/push"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func newChunks(t *testing.T) (*chunkstore.Dir, *images.Codec) {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := chunkstore.OpenDir(t.TempDir(), codec)
	if err != nil {
		t.Fatal(err)
	}
	return chunks, codec
}

// newDisk makes a raw disk of so many chunks that do not compress, and a last one of one sector.
func newDisk(t *testing.T, chunks int) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	data := make([]byte, chunks*images.ChunkBytes+images.SectorBytes)
	rand.NewChaCha8([32]byte{byte(chunks)}).Read(data)
	if _, err := file.Write(data); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestImageGoesInAndIsPublished(t *testing.T) {
	chunks, codec := newChunks(t)
	r := newRig(t, withAll(t), func(c *Config) { c.Chunks = chunks })
	admin := r.as(v1.Role_ROLE_ADMIN)
	file := newDisk(t, 150)
	header := &v1.VersionHeader{Image: "debian", Note: "first"}
	made, err := push.Disk(t.Context(), admin, codec, file, header, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := made.GetVersion()
	if made.GetExisted() || v.GetNumber() != 1 || v.GetBy() != "someone" || v.GetSizeBytes() != 150*images.ChunkBytes+512 ||
		v.GetStoredBytes() < 150*images.ChunkBytes {
		t.Errorf("made %v", made)
	}
	again, err := push.Disk(t.Context(), admin, codec, file, header, nil)
	if err != nil || !again.GetExisted() || again.GetVersion().GetNumber() != 1 {
		t.Errorf("pushed again: %v, %v", again, err)
	}
	told, err := v1.NewObjectServiceClient(admin).List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_EVENT, About: "debian"})
	if err != nil || len(told.GetObjects()) != 1 || told.GetObjects()[0].GetEvent().GetMessage() != "version 1 is a draft, taken in from someone: first" {
		t.Errorf("events %v, %v, want one for both", told, err)
	}
	client := v1.NewImageServiceClient(admin)
	published, err := client.Publish(t.Context(), &v1.PublishRequest{Image: "debian", Version: 1})
	if err != nil || published.GetVersion().GetState() != v1.VersionState_VERSION_STATE_READY {
		t.Errorf("Publish: %v, %v", published, err)
	}
	_, err = client.Publish(t.Context(), &v1.PublishRequest{Image: "debian", Version: 2})
	wantCode(t, err, codes.NotFound, "version 2 of image debian")

	_, err = push.Disk(t.Context(), r.as(v1.Role_ROLE_OPERATOR), codec, file, header, nil)
	wantCode(t, err, codes.PermissionDenied)
	r.testContent(codec, v.GetDigest(), file)
}

// testContent fetches a version as hosts do and compares it with the disk it came from.
func (r *rig) testContent(codec *images.Codec, digest string, file *os.File) {
	t := r.t
	t.Helper()
	host := &v1.Host{Meta: &v1.Meta{Name: "kvm1", Uid: "11111111-1111-4111-8111-111111111111"}, Spec: &v1.HostSpec{}}
	r.put(store.WriterAPI, host)
	client := v1.NewAgentServiceClient(r.asHost("kvm1", host.Meta.Uid))
	pieces, err := client.GetManifest(t.Context(), &v1.GetManifestRequest{Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	var encoded []byte
	for {
		piece, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		encoded = append(encoded, piece.GetPiece()...)
	}
	manifest, err := images.Parse(encoded)
	if err != nil || manifest.Digest().String() != digest {
		t.Fatalf("manifest: %v", err)
	}
	for piece := range manifest.Pieces() {
		got, err := client.GetChunks(t.Context(), &v1.GetChunksRequest{Digests: piece.Digest[:]})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := got.Recv()
		if err != nil {
			t.Fatal(err)
		}
		plain, err := codec.OpenPiece(nil, piece, answer.GetChunk().GetZstd())
		want := make([]byte, piece.Length)
		if _, readErr := file.ReadAt(want, piece.Offset); readErr != nil || err != nil || !bytes.Equal(plain, want) {
			t.Fatalf("piece %d: %v, %v", piece.Index, err, readErr)
		}
	}
	missing, err := client.GetChunks(t.Context(), &v1.GetChunksRequest{Digests: images.JoinDigests([]images.Digest{images.Sum([]byte("x"))})})
	if err == nil {
		_, err = missing.Recv()
	}
	wantCode(t, err, codes.NotFound, images.Sum([]byte("x")).String())
}

func TestImageServiceRefuses(t *testing.T) {
	chunks, codec := newChunks(t)
	r := newRig(t, func(c *Config) { c.Chunks = chunks })
	client := v1.NewImageServiceClient(r.as(v1.Role_ROLE_ADMIN))
	plain := []byte("golden")
	good := &v1.Chunk{Digest: images.JoinDigests([]images.Digest{images.Sum(plain)}), Zstd: codec.Seal(plain)}
	put := func(chunks ...*v1.Chunk) error {
		stream, err := client.PutChunks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&v1.PutChunksRequest{Chunks: chunks}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_, err = stream.CloseAndRecv()
		return err
	}
	wantCode(t, put(), codes.InvalidArgument, "chunks")
	wantCode(t, put(&v1.Chunk{Digest: []byte("short"), Zstd: good.GetZstd()}), codes.InvalidArgument, "digest")
	wantCode(t, put(&v1.Chunk{Digest: good.GetDigest(), Zstd: []byte("garbage")}), codes.DataLoss, images.Sum(plain).String())
	if err := put(good); err != nil {
		t.Errorf("a good chunk: %v", err)
	}
	_, err := client.MissingChunks(t.Context(), &v1.MissingChunksRequest{Digests: make([]byte, 33)})
	wantCode(t, err, codes.InvalidArgument, "multiple of 32")

	create := func(requests ...*v1.CreateVersionRequest) error {
		stream, err := client.CreateVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, request := range requests {
			if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		_, err = stream.CloseAndRecv()
		return err
	}
	absent, err := images.NewManifest(512, []images.Digest{images.Sum([]byte("absent"))})
	if err != nil {
		t.Fatal(err)
	}
	header := &v1.VersionHeader{Image: "debian"}
	wantCode(t, create(), codes.InvalidArgument, "header")
	wantCode(t, create(&v1.CreateVersionRequest{Manifest: absent.Encoded()}), codes.InvalidArgument, "header")
	wantCode(t, create(&v1.CreateVersionRequest{Header: header}, &v1.CreateVersionRequest{Header: header}), codes.InvalidArgument, "header")
	wantCode(t, create(&v1.CreateVersionRequest{Header: header, Manifest: []byte("garbage")}), codes.InvalidArgument, "manifest")
	wantCode(t, create(&v1.CreateVersionRequest{Header: header, Manifest: absent.Encoded()}), codes.FailedPrecondition, "chunks are missing")
	wantCode(t, create(&v1.CreateVersionRequest{Header: &v1.VersionHeader{Image: "../x"}, Manifest: absent.Encoded()}), codes.InvalidArgument, "header.image")
	if _, err := store.Get[*v1.Image](t.Context(), store.Open(r.backend, store.WriterAPI), "debian"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused version left an image: %v", err)
	}
}
