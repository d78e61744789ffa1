// The parts of requests and answers that programs use. Names are those on the wire.

/** What a log-in leads to. A client key stands alone, without a refresh token. */
export interface Tokens {
  access_token: string;
  /** Works once; an old one that is shown again ends the session. */
  refresh_token?: string | null;
}

export interface LoggedIn extends Tokens {
  message: string;
  token: string;
  refresh_token: string;
  token_type: "Bearer";
  /** Seconds for which access_token holds. */
  expires_in: number;
  user: {
    id: number;
    /** Stored as a hash only, so it can't be told. */
    username: null;
    display_name: string | null;
    avatar_url: string | null;
    trust_level: number;
    is_active: boolean;
    is_silenced: boolean;
    role: "user" | "auditor" | "admin" | "service";
  };
  /** What one has to know, told once: an operator has made a link by which a password can be set. */
  notices?: { type: "reset_link"; at: string; used_at: string | null }[];
}

export interface Registered {
  message: string;
  /** Only if an operator has to let the account in first. */
  state?: "pending";
}

export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

export interface ContentPart {
  type: string;
  text?: string;
  [field: string]: unknown;
}

export interface Message {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content: string | ContentPart[] | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
  [field: string]: unknown;
}

/** Any other field of the chat completions API goes through as well. */
export interface ChatRequest {
  model: string;
  messages: Message[];
  temperature?: number;
  max_tokens?: number;
  tools?: { type: "function"; function: { name: string; description?: string; parameters?: object } }[];
  [field: string]: unknown;
}

export interface TokenUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Dollars. */
  cost?: number;
  [field: string]: unknown;
}

export interface ChatCompletion {
  id: string;
  model: string;
  created: number;
  choices: { index: number; message: Message & { content: string | null }; finish_reason: string | null }[];
  usage?: TokenUsage;
  [field: string]: unknown;
}

export interface ChatDelta {
  role?: string;
  content?: string | null;
  tool_calls?: { index: number; id?: string; type?: "function"; function?: { name?: string; arguments?: string } }[];
  [field: string]: unknown;
}

export interface ChatChunk {
  id: string;
  model: string;
  created: number;
  choices: { index: number; delta: ChatDelta; finish_reason: string | null }[];
  /** In the last chunk. */
  usage?: TokenUsage | null;
  [field: string]: unknown;
}

/** Days of UTC such as `2026-11-21`, both included; without them the last 30. */
export interface Days {
  start_date?: string;
  end_date?: string;
}

export interface Sums {
  requests: number;
  errors: number;
  prompt_tokens: number;
  completion_tokens: number;
  /** Billionths of a dollar. */
  cost_nano: number;
  cost_usd: number;
  /** Calls whose cost nobody knows. */
  unknown: number;
}

export interface Usage {
  start_date: string;
  end_date: string;
  totals: Sums;
  by_model: (Sums & { model: string })[];
  by_day: (Sums & { date: string })[];
  /** null stands for calls without a client key. */
  by_client_key: (Sums & { client_key_id: number | null })[];
}

/** In dollars; null in all fields without a quota. */
export interface Quota {
  limit_usd: number | null;
  soft_limit_usd: number | null;
  spent_usd: number | null;
  reserved_usd: number | null;
  remaining_usd: number | null;
  period: string | null;
  recovery: string | null;
  resets_at: string | null;
  soft_limit_passed: boolean | null;
}
