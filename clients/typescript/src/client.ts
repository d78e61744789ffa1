import { type KdfParameters, checkedParameters, deriveKey, refused } from "./derive.js";
import { ProxyError } from "./errors.js";
import { eventData } from "./events.js";
import type * as types from "./types.js";
import type { Tokens } from "./types.js";

// So short that a second try falls into the ten seconds in which the gateway says a lost answer again.
const REFRESH_MILLISECONDS = 4000;

export interface ClientOptions {
  /** Of an earlier log-in, or a client key as `{ access_token: "sk-auto-..." }`. */
  tokens?: Tokens | null;
  /** Told of each new pair of tokens, and of null when they are of no use any more. */
  onTokens?: (tokens: Tokens | null) => void | Promise<void>;
  /** What pin() told at the sign-up: the gateway gets no key but one derived as then. */
  pin?: Pin | null;
  /** A domain of keys that is not the gateways' own, such as "novelai_data_access_key", which is taken only so. */
  domain?: string;
  /** Without TLS to a public name. */
  allowsHttp?: boolean;
}

/** How a gateway wants keys derived, to be kept from the sign-up on, as JSON. */
export interface Pin {
  readonly origin: string;
  readonly parameters: KdfParameters;
}

// With any other domain the key might open the same person's account at another service.
const OWN_DOMAINS = "openrouter-proxy-";
const PRIVATE_NAME = /^(?:[^.]+|.*\.(?:localhost|local|internal|lan|test))$/;
// URL has written numbers as addresses of four parts.
const PRIVATE_ADDRESS =
  /^(?:127\.|10\.|192\.168\.|169\.254\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|\[::1\]|\[f[cd]|\[fe[89ab])/;

export interface CallOptions {
  signal?: AbortSignal;
}

/** What one log-in has led to. Another log-in gets another object, so that nothing of this one can touch it. */
interface Session {
  tokens: Tokens | null;
  refreshing: Promise<void> | null;
}

type JsonObject = Record<string, unknown>;

/** One user's connection to one gateway. All methods throw ProxyError. */
export class ProxyClient {
  readonly #baseUrl: string;
  readonly #onTokens: (tokens: Tokens | null) => void | Promise<void>;
  #session: Session;
  readonly #origin: string;
  readonly #pin: Pin | null;
  readonly #domain: string | undefined;
  #parameters: Promise<KdfParameters> | null = null;

  constructor(baseUrl: string, options: ClientOptions = {}) {
    const { tokens = null, onTokens = () => undefined, pin = null, domain, allowsHttp = false } = options;
    const { protocol, username, password, hostname, origin } = new URL(baseUrl);
    if ((protocol !== "http:" && protocol !== "https:") || username || password) {
      throw new TypeError("baseUrl must look like https://gateway.example");
    }
    if (protocol === "http:" && !allowsHttp && isPublic(hostname)) {
      throw new TypeError("http:// would show keys and tokens to all on the way: use https://, or allowsHttp: true");
    }
    if (pin && pin.origin !== origin) throw new TypeError(`The pin is of ${pin.origin}, not of ${origin}`);
    this.#origin = origin;
    this.#pin = pin;
    this.#domain = domain;
    this.#baseUrl = baseUrl.replace(/\/+$/, "");
    this.#onTokens = onTokens;
    this.#session = { tokens, refreshing: null };
  }

  /** Those of now. Set others, such as what single sign-on answered, or null to forget them. */
  get tokens(): Tokens | null {
    return this.#session.tokens;
  }

  set tokens(tokens: Tokens | null) {
    this.#session = { tokens, refreshing: null };
  }

  /** How the gateway wants keys derived; asked once. */
  parameters(): Promise<KdfParameters> {
    this.#parameters ??= this.#json("GET", "/api/auth/kdf", { isSigned: false }).then((answer) =>
      this.#expected(checkedParameters(answer)),
    );
    this.#parameters.catch(() => {
      this.#parameters = null;
    });
    return this.#parameters;
  }

  /** How this gateway wants keys derived, to be kept from the sign-up on; see ClientOptions. */
  async pin(): Promise<Pin> {
    return { origin: this.#origin, parameters: await this.parameters() };
  }

  #expected(found: KdfParameters): KdfParameters {
    if (this.#pin) {
      const pinned = checkedParameters(this.#pin.parameters);
      const names = ["time_cost", "memory_kib", "parallelism", "hash_len", "domain"] as const;
      if (names.some((name) => pinned[name] !== found[name])) {
        throw refused("the gateway wants keys derived otherwise than it did at the sign-up");
      }
    } else if (found.domain !== this.#domain && !found.domain.startsWith(OWN_DOMAINS)) {
      throw refused(
        `domain "${found.domain}" may be another service's, where the key would open your account: ` +
          "pass it as domain if it is meant",
      );
    }
    return found;
  }

  /** Sign up. invitation: the code behind the # of an invitation's link, where the gateway asks for one. */
  async register(username: string, password: string, invitation?: string): Promise<types.Registered> {
    const derived_key = await deriveKey(username, password, await this.parameters());
    const body = { username, derived_key, ...(invitation ? { invitation } : {}) };
    return (await this.#json("POST", "/register", { body, isSigned: false })) as unknown as types.Registered;
  }

  /**
   * Log in and keep the tokens for the calls that follow. secondFactor: a code of the app, or a recovery code, where
   * the account has a second factor; without it a ProxyError of the type second_factor_needed says that the password
   * was right.
   */
  async login(username: string, password: string, secondFactor?: string): Promise<types.LoggedIn> {
    const derived_key = await deriveKey(username, password, await this.parameters());
    const body = { username, derived_key, ...factor(secondFactor) };
    const answer = await this.#json("POST", "/login", { body, isSigned: false });
    await this.#use(tokensOf(answer));
    return answer as unknown as types.LoggedIn;
  }

  /** Ten codes, each of which sets a new password once; those before are good no more. Soon after a log-in. */
  async newRecoveryCodes(): Promise<string[]> {
    const { codes } = await this.#json("POST", "/api/auth/recovery-codes");
    return codes as string[];
  }

  /**
   * Set a new password in the place of a forgotten one, and log in. Only a key derived from it is sent. secondFactor: as
   * for login; not the same recovery code.
   */
  async recover(
    username: string,
    recoveryCode: string,
    newPassword: string,
    secondFactor?: string,
  ): Promise<types.LoggedIn> {
    const new_derived_key = await deriveKey(username, newPassword, await this.parameters());
    const body = { username, recovery_code: recoveryCode, new_derived_key, ...factor(secondFactor) };
    const answer = await this.#json("POST", "/api/auth/recover", { body, isSigned: false });
    await this.#use(tokensOf(answer));
    return answer as unknown as types.LoggedIn;
  }

  /** End the session, everywhere. The tokens are forgotten even if the gateway can't be reached. */
  async logout(): Promise<void> {
    const session = this.#session;
    try {
      await this.#json("POST", "/api/auth/logout");
    } catch (problem) {
      if (!hasStatus(problem, 401)) throw problem; // 401: the session has ended before
    } finally {
      if (session === this.#session) await this.#use(null);
    }
  }

  /** The whole completion. */
  async chat(request: types.ChatRequest, { signal }: CallOptions = {}): Promise<types.ChatCompletion> {
    const body = { ...request, stream: false };
    return (await this.#json("POST", "/v1/chat/completions", { body, signal })) as unknown as types.ChatCompletion;
  }

  /** The completion's chunks as they arrive. Leaving the loop ends the request; one that was cut throws. */
  async *stream(request: types.ChatRequest, { signal }: CallOptions = {}): AsyncGenerator<types.ChatChunk, void, void> {
    const body = { ...request, stream: true };
    const response = await this.#call("POST", "/v1/chat/completions", { body, signal });
    if (!response.body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
      throw this.#error(response, parsed(await this.#received(response.text(), signal)));
    }
    let isWhole = false;
    const events = eventData(response.body);
    try {
      while (true) {
        const { value: data, done } = await this.#received(events.next(), signal);
        if (done) break;
        if (data === "[DONE]") return;
        const chunk = parsed(data);
        if (!chunk || chunk.error) throw this.#error(response, chunk);
        isWhole ||= saysEnd(chunk);
        yield chunk as unknown as types.ChatChunk;
      }
    } finally {
      await events.return();
    }
    // Some models' streams lack [DONE]; one that lacks an end as well was cut somewhere on its way.
    if (!isWhole) throw new ProxyError(0, "The stream broke off", "connection_error", requestIdOf(response));
  }

  /** What was used: in all, by model, by day and by client key. */
  async usage(days: types.Days = {}, { signal }: CallOptions = {}): Promise<types.Usage> {
    const query = new URLSearchParams(Object.entries(days).filter(([, day]) => day)).toString();
    const path = query ? `/api/usage/stats?${query}` : "/api/usage/stats";
    return (await this.#json("GET", path, { signal })) as unknown as types.Usage;
  }

  /** What may be spent, and what has been. */
  async quota({ signal }: CallOptions = {}): Promise<types.Quota> {
    return (await this.#json("GET", "/api/quota", { signal })) as unknown as types.Quota;
  }

  async #use(tokens: Tokens | null): Promise<void> {
    this.tokens = tokens;
    await this.#onTokens(tokens);
  }

  async #json(method: string, path: string, call: Call = {}): Promise<JsonObject> {
    const response = await this.#call(method, path, call);
    const answer = parsed(await this.#received(response.text(), call.signal));
    // OpenRouter can fail after its 200 is on the way: the error then stands in the body.
    if (!answer || answer.error) throw this.#error(response, answer, call.body);
    return answer;
  }

  /** An answer of status 2xx. A token that has run out is exchanged, and the call sent again, once. */
  async #call(method: string, path: string, call: Call): Promise<Response> {
    if (call.isSigned === false) return this.#send(method, path, call);
    const session = this.#session;
    const token = session.tokens?.access_token;
    try {
      return await this.#send(method, path, call, token);
    } catch (problem) {
      // If somebody else has logged in meanwhile, this call is not theirs.
      if (!hasStatus(problem, 401) || session !== this.#session) throw problem;
      if (session.tokens?.access_token === token) {
        if (!session.tokens?.refresh_token) throw problem;
        session.refreshing ??= this.#refresh(session, session.tokens.refresh_token);
        await unlessAborted(session.refreshing, call.signal);
      }
      if (!session.tokens) throw problem;
    }
    return this.#send(method, path, call, session.tokens.access_token);
  }

  /** Exchange the refresh token, for all calls that wait for it. */
  async #refresh(session: Session, refreshToken: string): Promise<void> {
    try {
      session.tokens = tokensOf(await this.#exchange(refreshToken));
    } catch (problem) {
      if (!hasStatus(problem, 400, 401, 403)) throw problem; // such as 429: that passes
      session.tokens = null;
      if (session === this.#session) await this.#onTokens(null);
      throw problem;
    } finally {
      session.refreshing = null;
    }
    if (session === this.#session) await this.#onTokens(session.tokens);
  }

  async #exchange(refreshToken: string, isLastTry = false): Promise<JsonObject> {
    const body = { refresh_token: refreshToken };
    try {
      return await this.#json("POST", "/api/auth/refresh", {
        body,
        isSigned: false,
        signal: AbortSignal.timeout(REFRESH_MILLISECONDS),
      });
    } catch (problem) {
      // Without an answer the token may be used up.
      const isLost = !(problem instanceof ProxyError) || problem.status === 0;
      if (!isLost || isLastTry) throw problem instanceof ProxyError ? problem : this.#noAnswer(problem);
    }
    return this.#exchange(refreshToken, true);
  }

  async #send(method: string, path: string, { body, signal }: Call, token?: string): Promise<Response> {
    if (token && !/^[!-~]+$/.test(token)) {
      // Said here, because the error of Headers repeats the token.
      throw new ProxyError(0, "access_token holds characters that no token has", "invalid_request");
    }
    const headers = new Headers(body ? { "Content-Type": "application/json" } : {});
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const request: RequestInit = {
      method,
      headers,
      body: body ? JSON.stringify(body) : null,
      signal: signal ?? null,
      redirect: "manual", // elsewhere nobody gets the token
      credentials: "omit", // each call carries its token; a cookie would only be a second, unnoticed log-in
      cache: "no-store",
    };
    const response = await this.#received(fetch(this.#baseUrl + path, request), signal);
    if (response.ok) return response;
    throw this.#error(response, parsed(await this.#received(response.text(), signal)), body, token);
  }

  /** What arrives from the gateway; a failure of the connection becomes a ProxyError, the caller's abort does not. */
  async #received<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    try {
      return await promise;
    } catch (problem) {
      signal?.throwIfAborted();
      throw this.#noAnswer(problem);
    }
  }

  #noAnswer(problem: unknown): ProxyError {
    const message = `The call to ${this.#baseUrl} failed: ${String(problem)}`;
    return new ProxyError(0, message, "connection_error", "", null, { cause: problem });
  }

  #error(response: Response, answer: JsonObject | null, sent?: JsonObject, token?: string): ProxyError {
    const error = asObject(answer?.error);
    const found = [error.message, answer?.message, answer?.detail].find((text) => typeof text === "string");
    let message = String(found ?? `The gateway's answer is not understood (HTTP ${response.status})`);
    if (response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400)) {
      message = "Redirects are not followed; baseUrl must be the gateway's own address";
    }
    const type = String(error.type ?? asObject(error.metadata).error_type ?? "");
    const status = typeof error.code === "number" ? error.code : response.status;
    const { access_token, refresh_token } = this.tokens ?? {};
    const ofBody = [sent?.derived_key, sent?.new_derived_key, sent?.recovery_code, sent?.second_factor, sent?.refresh_token];
    const secrets = [token, access_token, refresh_token, ...ofBody];
    const hide = (text: string): string =>
      secrets.reduce<string>((rest, secret) => (secret ? rest.replaceAll(String(secret), "[secret]") : rest), text);
    const seconds = response.headers.get("retry-after") ?? "";
    const retryAfter = /^\d+$/.test(seconds) ? Number(seconds) : null;
    return new ProxyError(status, hide(message), hide(type), hide(requestIdOf(response)), retryAfter);
  }
}

interface Call {
  body?: JsonObject;
  isSigned?: boolean;
  signal?: AbortSignal | undefined;
}

function tokensOf(answer: JsonObject): Tokens {
  const { access_token, refresh_token } = answer;
  if (typeof access_token !== "string" || typeof refresh_token !== "string") {
    throw new ProxyError(200, "The gateway's answer holds no tokens");
  }
  return { access_token, refresh_token };
}

/** What a promise gives, or the abort, if that comes first; others may go on waiting for the promise. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function hasStatus(problem: unknown, ...statuses: number[]): boolean {
  return problem instanceof ProxyError && statuses.includes(problem.status);
}

function factor(second_factor?: string): JsonObject {
  return second_factor ? { second_factor } : {};
}

function saysEnd(chunk: JsonObject): boolean {
  const choices = chunk.choices;
  return Array.isArray(choices) && choices.some((choice) => asObject(choice).finish_reason);
}

function requestIdOf(response: Response): string {
  return response.headers.get("x-request-id") ?? "";
}

function parsed(text: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function asObject(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isPublic(hostname: string): boolean {
  const isAddress = hostname.startsWith("[") || /^\d+(?:\.\d+){3}$/.test(hostname);
  return !(isAddress ? PRIVATE_ADDRESS : PRIVATE_NAME).test(hostname);
}
