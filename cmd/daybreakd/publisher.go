package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"daybreak/images/sign"
)

// publishers returns the key that signs image versions and the keys whose bundles are taken in. The key is made when there
// is none, beside the certificate authority: who copies that for a second daybreakd copies the key too, as it must be. One
// that was named must be there, since another key than the one that hosts pinned is of no use.
func publishers(o options, log zerolog.Logger) (*sign.Key, *sign.Publishers, error) {
	trusted, err := sign.ReadPublishers(o.TrustKeys...)
	if err != nil {
		return nil, nil, fmt.Errorf("--trust-publisher-key: %w", err)
	}
	if o.PublisherKey != "" {
		key, err := sign.ReadKey(o.PublisherKey)
		if err != nil {
			return nil, nil, fmt.Errorf("--publisher-key: %w", err)
		}
		return key, trusted, nil
	}
	if err := os.MkdirAll(o.CADir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory of the publisher key: %w", err)
	}
	path := filepath.Join(o.CADir, "publisher.key")
	key, made, err := sign.MakeKey(path)
	if err != nil {
		return nil, nil, err
	}
	if made {
		log.Info().Str("file", path).Str("publisher", sign.Fingerprint(key.Public())).Msg("publisher key made: it signs all image versions from now on")
	}
	return key, trusted, nil
}
