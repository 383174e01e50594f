package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/rs/zerolog"

	"daybreak/images/sign"
	"daybreak/proto/identity"
)

func identityDir(o options) string { return filepath.Join(o.DataDir, "tls") }

// publishers are those whose images may run here: the ones that were named, else the ones pinned at enrolment. Never nil:
// where there are none, nothing new is run.
func publishers(o options, log zerolog.Logger) (*sign.Publishers, error) {
	paths := o.PublisherKey
	if len(paths) == 0 {
		paths = []string{identity.PublishersFile(identityDir(o))}
	}
	trusted, err := sign.ReadPublishers(paths...)
	if errors.Is(err, fs.ErrNotExist) && len(o.PublisherKey) == 0 {
		trusted, err = sign.NewPublishers()
	}
	if err != nil {
		return nil, err
	}
	for _, key := range trusted.Keys() {
		log.Info().Str("publisher", sign.Fingerprint(key)).Msg("images of this publisher may run here")
	}
	return trusted, nil
}
