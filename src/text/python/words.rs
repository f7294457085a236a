//! Word lists: what programs talk about.

/// One subject area. A document keeps to one, so that its names belong together.
pub(crate) struct Domain {
    /// Things, singular and plural.
    pub(crate) things: &'static [(&'static str, &'static str)],
    /// Names of classes.
    pub(crate) classes: &'static [&'static str],
    /// Attributes that are integers.
    pub(crate) ints: &'static [&'static str],
    /// Attributes that are fractions.
    pub(crate) floats: &'static [&'static str],
    /// Attributes that are strings.
    pub(crate) strs: &'static [&'static str],
    /// Attributes that are true or false.
    pub(crate) flags: &'static [&'static str],
    /// What is done to the things.
    pub(crate) verbs: &'static [&'static str],
    /// Short strings: labels, keys and values.
    pub(crate) labels: &'static [&'static str],
}

pub(crate) const DOMAINS: [Domain; 14] = [
    Domain {
        things: &[
            ("order", "orders"),
            ("item", "items"),
            ("product", "products"),
            ("customer", "customers"),
            ("cart", "carts"),
        ],
        classes: &["Order", "Product", "ShoppingCart", "Customer", "Invoice"],
        ints: &["quantity", "stock", "discount", "number"],
        floats: &["price", "tax", "total_price"],
        strs: &["name", "category", "address", "currency"],
        flags: &["paid", "shipped", "available"],
        verbs: &["ship_", "order_", "return_", "price_"],
        labels: &["apple", "bread", "milk", "cheese", "coffee", "tea", "sugar", "rice", "honey", "butter", "lemon"],
    },
    Domain {
        things: &[
            ("player", "players"),
            ("enemy", "enemies"),
            ("level", "levels"),
            ("weapon", "weapons"),
            ("quest", "quests"),
        ],
        classes: &["Player", "Enemy", "Game", "Weapon", "Level"],
        ints: &["health", "score", "damage", "armor", "lives", "x", "y"],
        floats: &["speed", "luck"],
        strs: &["name", "title", "team", "color"],
        flags: &["alive", "visible", "ready"],
        verbs: &["attack_", "heal_", "move_", "spawn_"],
        labels: &[
            "sword", "shield", "potion", "dragon", "castle", "forest", "knight", "wizard", "arrow", "gold", "north",
        ],
    },
    Domain {
        things: &[
            ("account", "accounts"),
            ("payment", "payments"),
            ("transfer", "transfers"),
            ("loan", "loans"),
            ("bank", "banks"),
        ],
        classes: &["Account", "Payment", "Bank", "Transaction", "Loan"],
        ints: &["balance", "amount", "number", "limit"],
        floats: &["rate", "interest", "fee"],
        strs: &["owner", "currency", "branch", "status"],
        flags: &["locked", "approved", "closed"],
        verbs: &["deposit_", "send_", "approve_", "close_"],
        labels: &[
            "savings", "checking", "credit", "debit", "pending", "dollar", "euro", "salary", "rent", "refund", "cash",
        ],
    },
    Domain {
        things: &[
            ("student", "students"),
            ("teacher", "teachers"),
            ("course", "courses"),
            ("grade", "grades"),
            ("exam", "exams"),
        ],
        classes: &["Student", "Teacher", "Course", "School", "Exam"],
        ints: &["age", "year", "points", "room"],
        floats: &["average", "weight"],
        strs: &["name", "subject", "email", "school"],
        flags: &["passed", "enrolled", "present"],
        verbs: &["grade_", "enroll_", "teach_", "rank_"],
        labels: &[
            "math", "physics", "history", "music", "english", "biology", "alice", "bob", "carol", "david", "emma",
        ],
    },
    Domain {
        things: &[
            ("book", "books"),
            ("author", "authors"),
            ("page", "pages"),
            ("reader", "readers"),
            ("library", "libraries"),
        ],
        classes: &["Book", "Author", "Library", "Reader", "Shelf"],
        ints: &["pages", "year", "copies", "edition"],
        floats: &["rating", "price"],
        strs: &["title", "author", "genre", "language"],
        flags: &["borrowed", "available", "signed"],
        verbs: &["borrow_", "lend_", "read_", "sort_"],
        labels: &[
            "novel", "poem", "story", "drama", "mystery", "science", "travel", "garden", "winter", "ocean", "river",
        ],
    },
    Domain {
        things: &[
            ("city", "cities"),
            ("station", "stations"),
            ("reading", "readings"),
            ("region", "regions"),
            ("storm", "storms"),
        ],
        classes: &["Station", "Forecast", "City", "Sensor", "Reading"],
        ints: &["humidity", "pressure", "altitude", "hour"],
        floats: &["temperature", "wind", "rainfall"],
        strs: &["city", "country", "unit", "label"],
        flags: &["sunny", "online", "raining"],
        verbs: &["measure_", "convert_", "record_", "predict_"],
        labels: &["rain", "snow", "cloud", "sun", "fog", "paris", "london", "tokyo", "oslo", "lima", "monday"],
    },
    Domain {
        things: &[
            ("node", "nodes"),
            ("edge", "edges"),
            ("path", "paths"),
            ("neighbor", "neighbors"),
            ("tree", "trees"),
        ],
        classes: &["Node", "Graph", "Tree", "Queue", "Stack"],
        ints: &["value", "depth", "degree", "key", "distance"],
        floats: &["weight", "cost"],
        strs: &["label", "name", "color"],
        flags: &["visited", "leaf", "directed"],
        verbs: &["visit_", "connect_", "search_", "remove_"],
        labels: &["root", "left", "right", "start", "end", "parent", "child", "leaf", "red", "black", "goal"],
    },
    Domain {
        things: &[
            ("request", "requests"),
            ("server", "servers"),
            ("user", "users"),
            ("session", "sessions"),
            ("packet", "packets"),
        ],
        classes: &["Server", "Client", "Request", "Session", "Response"],
        ints: &["port", "timeout", "retries", "status", "size"],
        floats: &["delay", "load"],
        strs: &["host", "url", "token", "method", "body"],
        flags: &["connected", "secure", "active"],
        verbs: &["send_", "fetch_", "connect_", "handle_"],
        labels: &[
            "localhost",
            "admin",
            "guest",
            "login",
            "logout",
            "home",
            "index",
            "error",
            "ping",
            "upload",
            "cache",
        ],
    },
    Domain {
        things: &[
            ("word", "words"),
            ("line", "lines"),
            ("token", "tokens"),
            ("letter", "letters"),
            ("document", "documents"),
        ],
        classes: &["Parser", "Document", "Tokenizer", "Editor", "Word"],
        ints: &["length", "position", "count", "start", "end"],
        floats: &["score", "frequency"],
        strs: &["text", "language", "prefix", "suffix"],
        flags: &["upper", "empty", "quoted"],
        verbs: &["parse_", "split_", "clean_", "replace_"],
        labels: &["hello", "world", "comma", "space", "title", "noun", "verb", "the", "quick", "brown", "fox"],
    },
    Domain {
        things: &[
            ("recipe", "recipes"),
            ("meal", "meals"),
            ("guest", "guests"),
            ("table", "tables"),
            ("dish", "dishes"),
        ],
        classes: &["Recipe", "Kitchen", "Restaurant", "Menu", "Dish"],
        ints: &["servings", "minutes", "calories", "seats"],
        floats: &["price", "rating"],
        strs: &["name", "chef", "cuisine", "taste"],
        flags: &["vegan", "spicy", "served"],
        verbs: &["cook_", "serve_", "taste_", "book_"],
        labels: &["soup", "salad", "pasta", "pizza", "onion", "garlic", "pepper", "salt", "flour", "egg", "lunch"],
    },
    Domain {
        things: &[("car", "cars"), ("driver", "drivers"), ("trip", "trips"), ("truck", "trucks"), ("wheel", "wheels")],
        classes: &["Car", "Vehicle", "Garage", "Engine", "Driver"],
        ints: &["year", "doors", "mileage", "gear"],
        floats: &["speed", "fuel", "distance"],
        strs: &["brand", "model", "color", "plate"],
        flags: &["running", "electric", "parked"],
        verbs: &["drive_", "park_", "repair_", "start_"],
        labels: &["ford", "tesla", "fiat", "volvo", "blue", "white", "silver", "diesel", "brake", "road", "bridge"],
    },
    Domain {
        things: &[
            ("song", "songs"),
            ("artist", "artists"),
            ("album", "albums"),
            ("track", "tracks"),
            ("playlist", "playlists"),
        ],
        classes: &["Song", "Album", "Playlist", "Artist", "Concert"],
        ints: &["duration", "plays", "volume", "tempo"],
        floats: &["rating", "pitch"],
        strs: &["title", "artist", "genre", "mood"],
        flags: &["playing", "liked", "muted"],
        verbs: &["play_", "skip_", "mix_", "shuffle_"],
        labels: &["jazz", "rock", "blues", "piano", "guitar", "drums", "violin", "summer", "night", "dance", "slow"],
    },
    Domain {
        things: &[
            ("task", "tasks"),
            ("worker", "workers"),
            ("project", "projects"),
            ("event", "events"),
            ("job", "jobs"),
        ],
        classes: &["Task", "Worker", "Scheduler", "Project", "Event"],
        ints: &["priority", "hours", "progress", "level"],
        floats: &["budget", "estimate"],
        strs: &["name", "status", "owner", "description"],
        flags: &["done", "urgent", "blocked"],
        verbs: &["assign_", "finish_", "schedule_", "run_"],
        labels: &["open", "closed", "review", "design", "test", "deploy", "backlog", "friday", "today", "high", "low"],
    },
    Domain {
        things: &[
            ("point", "points"),
            ("shape", "shapes"),
            ("vector", "vectors"),
            ("pixel", "pixels"),
            ("circle", "circles"),
        ],
        classes: &["Point", "Shape", "Vector", "Canvas", "Rectangle"],
        ints: &["x", "y", "width", "height", "sides"],
        floats: &["radius", "angle", "scale"],
        strs: &["color", "name", "label"],
        flags: &["filled", "closed", "hidden"],
        verbs: &["draw_", "rotate_", "scale_", "move_"],
        labels: &["square", "circle", "line", "green", "red", "blue", "top", "bottom", "center", "grid", "border"],
    },
];

pub(crate) const INTS: &[&str] = &[
    "count", "total", "index", "size", "limit", "n", "m", "x", "y", "step", "offset", "width", "height", "depth",
    "start", "end", "number", "value", "result", "best", "low", "high", "a", "b", "left", "right", "age", "length",
    "position", "k", "previous", "attempts", "seconds", "steps", "rows", "cols", "first", "second", "third",
];
pub(crate) const FLOATS: &[&str] = &[
    "rate",
    "ratio",
    "average",
    "price",
    "weight",
    "factor",
    "mean",
    "threshold",
    "area",
    "error",
    "alpha",
    "scale",
    "amount",
];
pub(crate) const STRS: &[&str] = &[
    "name", "text", "message", "label", "line", "key", "prefix", "title", "word", "output", "result", "current",
    "buffer", "sentence", "command", "answer", "status", "mode", "color", "letter", "header", "body", "phrase", "path",
    "filename", "s", "first", "last", "choice", "summary",
];
pub(crate) const BOOLS: &[&str] = &[
    "done", "found", "valid", "active", "enabled", "ready", "running", "finished", "verbose", "success", "changed",
    "empty", "debug",
];
pub(crate) const INT_LISTS: &[&str] = &[
    "numbers", "values", "scores", "data", "results", "sizes", "totals", "points", "counts", "stack", "queue", "row",
    "nums",
];
pub(crate) const STR_LISTS: &[&str] = &[
    "names", "words", "lines", "labels", "parts", "keys", "fields", "letters", "messages", "paths", "colors", "titles",
    "result",
];
pub(crate) const GRIDS: &[&str] = &["matrix", "grid", "table", "board", "rows", "pairs", "groups", "cells", "blocks"];
pub(crate) const SETS: &[&str] = &[
    "seen", "visited", "unique", "current", "tags", "known", "names", "found", "used", "letters", "ids", "allowed",
    "words",
];
pub(crate) const DICTS: &[&str] =
    &["counts", "scores", "prices", "ages", "table", "stock", "lookup", "totals", "index", "cache"];
pub(crate) const MAPS: &[&str] =
    &["config", "options", "settings", "mapping", "headers", "params", "info", "colors", "names", "data"];
pub(crate) const CONSTANTS: &[&str] = &[
    "MAX_SIZE",
    "LIMIT",
    "DEFAULT_SIZE",
    "MAX_RETRIES",
    "TIMEOUT",
    "WIDTH",
    "HEIGHT",
    "MIN_SCORE",
    "BATCH_SIZE",
    "STEPS",
];

/// What may stand before an attribute or a thing in a longer name, by kind of variable.
pub(crate) const INT_HEADS: &[&str] = &["max_", "min_", "total_", "num_", "last_", "next_", "old_", "new_", "first_"];
pub(crate) const STR_HEADS: &[&str] = &["new_", "old_", "first_", "last_", "default_", "full_", "short_"];
pub(crate) const BOOL_HEADS: &[&str] = &["is_", "has_", "all_", "was_"];
pub(crate) const LIST_HEADS: &[&str] = &["new_", "all_", "old_", "sorted_", "valid_", "other_"];

pub(crate) const ADJECTIVES: &[&str] = &[
    "new", "old", "first", "last", "empty", "invalid", "missing", "wrong", "small", "big", "next", "free", "good",
    "bad", "fast", "current", "unknown", "hidden", "final", "simple",
];
pub(crate) const PLAIN_VERBS: &[&str] = &[
    "load", "save", "add", "remove", "find", "check", "update", "print", "open", "close", "start", "stop", "read",
    "write", "count",
];
pub(crate) const FILE_STEMS_READ: &[&str] = &[
    "input", "data", "config", "source", "settings", "names", "words", "train", "numbers", "users", "template", "notes",
];
pub(crate) const FILE_STEMS_WRITE: &[&str] = &[
    "output", "result", "log", "report", "backup", "summary", "export", "errors", "copy", "history", "results", "dump",
];
pub(crate) const FILE_ENDS: &[&str] = &[".txt", ".txt", ".csv", ".json", ".log", ".dat", ".md"];
