// Derives the access key from the password on this device, so that the password never leaves it.
//
// The page loads hash-wasm before this module; both files add themselves to globalThis.hashwasm:
//   <script src="/static/vendor/hash-wasm-argon2-4.13.0.min.js"></script>
//   <script src="/static/vendor/hash-wasm-blake2b-4.13.0.min.js"></script>
// The Content-Security-Policy needs script-src 'self' 'wasm-unsafe-eval'.

const SALT_BYTES = 16;
const SALT_PASSWORD_CHARACTERS = 6;
const DERIVED_KEY_LENGTH = 64;

const FIXED_SCHEME = {
  algorithm: 'argon2id',
  'salt.algorithm': 'blake2b',
  'salt.digest_bytes': SALT_BYTES,
  'salt.password_prefix_characters': SALT_PASSWORD_CHARACTERS,
  encoding: 'base64url',
  length: DERIVED_KEY_LENGTH,
};

// The lower bound keeps a malicious server from asking for a key that is cheap to guess the password from,
// the upper one from exhausting this machine.
const ACCEPTED_RANGES = {
  time_cost: [2, 64],
  memory_kib: [1953, 1024 * 1024],
  parallelism: [1, 16],
  hash_len: [64, 1024],
};

/** Ask the gateway how it wants keys derived; `baseUrl` may be empty for the page's own origin. */
export async function fetchParameters(baseUrl) {
  const response = await fetch(`${baseUrl.replace(/\/+$/, '')}/api/auth/kdf`, { redirect: 'error' });
  if (!response.ok) throw new Error(`The gateway did not tell how to derive the key (HTTP ${response.status})`);
  const parameters = await response.json();
  refuseUnacceptable(parameters);
  return parameters;
}

/** Derive the key that stands in for the password at /register and /login. */
export async function deriveKey(username, password, parameters) {
  refuseUnacceptable(parameters);
  const { createBLAKE2b, argon2id } = globalThis.hashwasm;
  // Characters are code points; slicing the string itself would cut emoji in half.
  const passwordStart = [...password].slice(0, SALT_PASSWORD_CHARACTERS).join('');
  // hash-wasm wants the digest size in bits.
  const saltHash = (await createBLAKE2b(SALT_BYTES * 8)).init();
  saltHash.update(encode(passwordStart, 'password'));
  saltHash.update(encode(username, 'username'));
  saltHash.update(encode(parameters.domain, 'domain'));
  const rawKey = await argon2id({
    password: encode(password, 'password'),
    salt: saltHash.digest('binary'),
    iterations: parameters.time_cost,
    memorySize: parameters.memory_kib,
    parallelism: parameters.parallelism,
    hashLength: parameters.hash_len,
    outputType: 'binary',
  });
  return base64url(rawKey).slice(0, DERIVED_KEY_LENGTH);
}

function refuseUnacceptable(parameters) {
  for (const [path, expected] of Object.entries(FIXED_SCHEME)) {
    const value = path.split('.').reduce((part, name) => part?.[name], parameters);
    if (value !== expected) throw new Error(`${path} must be ${expected}, not ${value}`);
  }
  for (const [name, [lowest, highest]] of Object.entries(ACCEPTED_RANGES)) {
    const value = parameters[name];
    if (!Number.isInteger(value) || value < lowest || value > highest) {
      throw new Error(`${name} must be a whole number from ${lowest} to ${highest}, not ${value}`);
    }
  }
  if (typeof parameters.domain !== 'string' || !parameters.domain) {
    throw new Error('domain must be a text that is not empty');
  }
}

function encode(text, what) {
  // TextEncoder would replace half an emoji without a word, and other clients would derive another key.
  if (/\p{Surrogate}/u.test(text)) throw new Error(`the ${what} is not valid Unicode`);
  if (!text) throw new Error(`the ${what} is empty`);
  return new TextEncoder().encode(text);
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_');
}
